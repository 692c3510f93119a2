//! `cargo xtask demo`.

pub fn run() -> anyhow::Result<()> {
    for scenario in crate::scenario::all() {
        let ctx = crate::scenario::Ctx::new(8443)?;
        let began = std::time::Instant::now();
        let got = scenario.play(&ctx);
        println!("{:28} {:?} {:?}", scenario.name, began.elapsed(), got.err());
    }
    Ok(())
}
