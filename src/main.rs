//! The `pombo` command: a client of the library like any other.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main()
}
