//! Make the kernel agree with the plan, flush what is stale, repair what others break.
