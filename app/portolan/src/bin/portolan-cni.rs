//! The CNI plugin, as small as it can be: [`portolan_plugin`]. It is in this package so that it is built and installed
//! beside `portolan`, which puts it where a runtime looks for it.

fn main() -> std::process::ExitCode {
    portolan_plugin::main()
}
