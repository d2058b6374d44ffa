//! `bpmgate man`: prints the manual page.
//!
//! One page for all commands, as nobody looks for `bpmgate-explain-request(1)`.

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::{CommandLine, Failure, print};

/// Prints the page.
pub(super) fn run() -> Result<(), Failure> {
    print(&String::from_utf8_lossy(&page()?))
}

fn page() -> Result<Vec<u8>, Failure> {
    let mut command = CommandLine::command()
        .disable_help_subcommand(true)
        .subcommand_value_name("COMMAND");
    command.build();
    let man = Man::new(command.clone()).manual("bpmgate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_options_section(&mut page)?;
    Roff::new()
        .control("SH", ["COMMANDS"])
        .to_writer(&mut page)?;
    for command in command.get_subcommands() {
        write_command(command, &mut page)?;
    }
    surroundings().to_writer(&mut page)?;
    Ok(page)
}

/// A command's name, what it does, and its options, which the library gives a section of their own.
fn write_command(command: &Command, page: &mut Vec<u8>) -> Result<(), Failure> {
    let about = command.get_about().map(ToString::to_string);
    Roff::new()
        .control("SS", [command.get_name()])
        .text([roman(about.unwrap_or_default())])
        .to_writer(page)?;
    let mut options = Vec::new();
    Man::new(command.clone()).render_options_section(&mut options)?;
    let options = String::from_utf8_lossy(&options);
    let lines = options.lines().filter(|line| !line.starts_with(".SH"));
    page.extend(lines.flat_map(|line| [line, "\n"]).flat_map(str::bytes));
    Ok(())
}

/// What is around a command line: files, environment, exit status.
fn surroundings() -> Roff {
    let mut roff = Roff::new();
    let sections: [(&str, &[(&str, &str)]); 3] = [
        (
            "FILES",
            &[
                (
                    "./config.toml",
                    "The configuration, where there is no --config",
                ),
                (
                    "/etc/bpmgate/config.toml",
                    "The same, where the former is not there",
                ),
            ],
        ),
        (
            "ENVIRONMENT",
            &[
                (
                    "BPMGATE__*",
                    "Every key of the configuration: BPMGATE__ENGINE__URL sets engine.url, over what the file says",
                ),
                ("NO_COLOR", "No colours in messages, if it is not empty"),
            ],
        ),
        (
            "EXIT STATUS",
            &[
                ("0", "Fine"),
                ("1", "Failed while running"),
                ("2", "Bad usage or configuration"),
            ],
        ),
    ];
    for (section, rows) in sections {
        roff.control("SH", [section]);
        for (name, means) in rows {
            roff.control("TP", [])
                .text([bold(*name)])
                .text([roman(*means)]);
        }
    }
    roff
}
