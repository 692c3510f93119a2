pub fn print() -> Result<(), crate::exit::Failure> {
    Ok(())
}
