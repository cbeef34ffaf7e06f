//! tmp
use crate::workspace::Workspace;
pub(crate) fn run(_w: &Workspace, _a: &[String]) -> anyhow::Result<()> {
    Ok(())
}
