//! The web page: live backends, no external assets.
