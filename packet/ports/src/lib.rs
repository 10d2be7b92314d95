//! Choose, hold, reserve and journal host ports.
