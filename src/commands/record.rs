//! todo
use crate::cli::RecordArgs;
pub(super) fn run(_args: RecordArgs) -> anyhow::Result<u8> {
    Ok(0)
}
