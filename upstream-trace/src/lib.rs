pub mod record;
pub mod tcp;
