//! The report: Markdown with every figure, and a plot as SVG for each chart.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::figure::{Figure, cells};
use crate::{chart, machine};

/// Today, as the name of a report.
pub fn date() -> String {
    let output = Command::new("date").arg("+%Y-%m-%d").output();
    output.map_or("undated".to_owned(), |output| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Writes a report into a folder: `README.md`, `figures.json` and the plots.
pub fn write(folder: &Path, figures: &[Figure], failed: &[String]) -> Result<()> {
    let cannot = || format!("cannot write {}", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    let titles = chart::titles(figures);
    for title in &titles {
        fs::write(folder.join(file_name(title)), chart::draw(title, figures)).with_context(cannot)?;
    }
    let lines: Vec<String> = figures.iter().map(Figure::json).collect();
    fs::write(folder.join("figures.json"), lines.join("\n") + "\n").with_context(cannot)?;
    fs::write(folder.join("README.md"), markdown(figures, failed, &titles)).with_context(cannot)
}

fn markdown(figures: &[Figure], failed: &[String], titles: &[String]) -> String {
    let mut out =
        String::from("# Measured\n\nWhat each figure means: [perf/README.md](../../README.md).\n\n");
    out.push_str("| machine | |\n|---|---|\n");
    for (name, value) in machine::facts() {
        let _ = writeln!(out, "| {name} | {} |", cell(&value));
    }
    if !failed.is_empty() {
        let _ = writeln!(out, "\nNot measured, for an error: {}.", failed.join(", "));
    }
    for title in titles {
        let _ = writeln!(out, "\n![{title}]({})", file_name(title));
    }
    out.push_str(
        "\n| case | metric | unit | min | median | max | reference | its median | ratio | regime |\n\
         |---|---|---|---:|---:|---:|---|---:|---:|---|\n",
    );
    for figure in figures {
        let row: Vec<String> = cells(figure).iter().map(|text| cell(text)).collect();
        let _ = writeln!(out, "| {} |", row.join(" | "));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

/// A chart's title as a file's name.
fn file_name(title: &str) -> String {
    let words: String =
        title.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    words.split_whitespace().collect::<Vec<_>>().join("-") + ".svg"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figure::Place;

    #[test]
    fn a_report_has_every_figure_and_shows_every_chart() {
        let figure = Figure::of("ring", "cost | both ways", "cycles", &[1.0, 2.0, 3.0, 4.0, 5.0])
            .against("macswap", &[1.0; 5])
            .at("Cost, by flows", "nat", Place::Number(1e3));
        let titles = chart::titles(std::slice::from_ref(&figure));
        let text = markdown(&[figure], &["memif".to_owned()], &titles);
        assert!(text.contains("![Cost, by flows](cost-by-flows.svg)"), "{text}");
        assert!(text.contains("| ring | cost \\| both ways | cycles | 1.00 | 3.00 | 5.00 | macswap | 1.00 | 3.000 | single |"), "{text}");
        assert!(text.contains("Not measured, for an error: memif."));
    }
}
