use crate::record::Verdict;
#[derive(Clone, Debug, Default)]
pub struct Selection {
    pub flagged: bool,
    pub failed: bool,
    pub verdicts: Vec<Verdict>,
    pub ignored: Vec<Verdict>,
}
