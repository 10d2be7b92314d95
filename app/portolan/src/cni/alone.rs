//! The plugin without an agent.
use portolan_cni::{CniError, Settings, code};
use portolan_model::{AddRequest, Attachment};

fn nothing() -> CniError {
    CniError::new(code::NOT_AVAILABLE, "no agent is configured")
}
pub(super) fn add(_: &Settings, _: &AddRequest) -> Result<(), CniError> {
    Err(nothing())
}
pub(super) fn check(_: &Settings, _: &AddRequest) -> Result<(), CniError> {
    Err(nothing())
}
pub(super) fn del(_: &Settings, _: &Attachment) -> Result<(), CniError> {
    Ok(())
}
pub(super) fn gc(_: &Settings, _: &str, _: &[Attachment]) -> Result<(), CniError> {
    Ok(())
}
pub(super) fn status(_: &Settings) -> Result<(), CniError> {
    Ok(())
}
