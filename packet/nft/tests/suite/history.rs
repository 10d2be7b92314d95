//! Random histories: the kernel and the fake accept and refuse the same steps, and dump the same table after each.
