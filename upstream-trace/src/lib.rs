pub mod output;
pub mod record;
pub mod tcp;
