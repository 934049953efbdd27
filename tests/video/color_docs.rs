//! The table of docs/color.md: what the files of each encoder state.

use std::collections::{BTreeMap, BTreeSet};

use crate::color_table::Written;
use crate::common::program::project_file;
use crate::common::sweep;

/// Letters of the table, and where in the tags the property is.
const PROPERTIES: [(char, usize); 5] = [('M', 0), ('R', 1), ('P', 3), ('T', 2), ('S', 4)];

/// Containers that share a column of the table; the last is that of images.
const COLUMNS: [&str; 7] = ["mkv webm", "mp4", "mov", "mxf", "avi nut wmv flv ogv mpg ts", "y4m", "image"];

const HEADING: &str =
    "| encoders | mkv, webm | mp4 | mov | mxf | avi, nut, wmv, flv, ogv, mpg, ts | y4m | images |";

fn column_of(extension: &str) -> usize {
    let place = COLUMNS.iter().position(|column| column.split(' ').any(|name| name == extension));
    place.unwrap_or(COLUMNS.len() - 1)
}

/// Holds the files against the table. With all files it is the table that has to be equal; HASN_DOCS_UPDATE=1 writes it.
pub fn check(files: &[Written]) {
    let path = project_file("docs/color.md");
    let docs = std::fs::read_to_string(&path).unwrap();
    let from = docs.find(HEADING).expect("docs/color.md has the table");
    let table = &docs[from..][..docs[from..].find("\n\n").expect("text follows it") + 1];
    if sweep::is_whole() {
        let found = table_of(files);
        if std::env::var_os("HASN_DOCS_UPDATE").is_some() {
            std::fs::write(&path, docs.replace(table, &found)).unwrap();
        } else {
            assert_eq!(table, found, "docs/color.md; HASN_DOCS_UPDATE=1 writes it");
        }
        return;
    }
    for file in files {
        let row = table.lines().find(|row| row.split(['|', ',']).any(|name| name.trim() == file.encoder));
        let Some(row) = row else { continue };
        let cell = row.split('|').nth(2 + column_of(&file.extension)).unwrap().trim();
        for (letter, at) in PROPERTIES {
            if letters_of_one(cell, &file.extension).contains(letter) && is_said(file, at) {
                let Written { encoder, extension, source, found, .. } = file;
                assert_eq!(found[at], source[at], "{encoder} in {extension}, {letter} of docs/color.md");
            }
        }
    }
}

/// Whether a file has to state the property of its source: R'G'B' has no matrix and no range.
fn is_said(file: &Written, at: usize) -> bool {
    let is_of_ycbcr = at < 2;
    !(is_of_ycbcr && file.source[0] == "gbr") && file.source[at] != "unspecified"
}

/// What a cell has for a container: `MRPT, ogv RPT` has something else for Ogg.
fn letters_of_one<'a>(cell: &'a str, extension: &str) -> &'a str {
    let of_it = cell.split(", ").find_map(|part| part.strip_prefix(extension)?.strip_prefix(' '));
    of_it.unwrap_or(cell.split(", ").next().unwrap())
}

fn table_of(files: &[Written]) -> String {
    let mut cells: BTreeMap<&str, BTreeMap<&str, Vec<&Written>>> = BTreeMap::new();
    for file in files {
        cells.entry(&file.encoder).or_default().entry(&file.extension).or_default().push(file);
    }
    let mut rows: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (encoder, of_extension) in &cells {
        let mut columns = vec![Vec::new(); COLUMNS.len()];
        for (extension, files) in of_extension {
            columns[column_of(extension)].push((*extension, letters(files)));
        }
        let row: Vec<_> = columns.iter().map(|column| cell(column)).collect();
        rows.entry(row.join(" | ")).or_default().push(encoder);
    }
    let mut lines: Vec<_> =
        rows.iter().map(|(row, names)| format!("| {} | {row} |\n", names.join(", "))).collect();
    lines.sort();
    format!("{HEADING}\n{}|\n{}", "|---".repeat(1 + COLUMNS.len()), lines.concat())
}

/// Properties of which every value comes back, in lower case those of which some do.
fn letters(files: &[&Written]) -> String {
    let letter = |(letter, at): (char, usize)| {
        let said: Vec<_> = files.iter().filter(|file| is_said(file, at)).collect();
        let kept: BTreeSet<_> = said
            .iter()
            .filter(|file| file.found[at] == file.source[at])
            .collect::<Vec<_>>()
            .iter()
            .map(|file| file.source[at])
            .collect();
        let all: BTreeSet<_> = said.iter().map(|file| file.source[at]).collect();
        match kept.len() {
            len if len == all.len() => Some(letter),
            2.. => Some(letter.to_ascii_lowercase()),
            _ => None,
        }
    };
    let letters: String = PROPERTIES.into_iter().filter_map(letter).collect();
    if letters.is_empty() { "–".to_owned() } else { letters }
}

/// The letters that most containers of a column have, and those of the others.
fn cell(column: &[(&str, String)]) -> String {
    let count = |letters: &String| column.iter().filter(|(_, other)| other == letters).count();
    let Some((_, most)) = column.iter().max_by_key(|(_, letters)| count(letters)) else {
        return String::new();
    };
    let others = column.iter().filter(|(_, letters)| letters != most);
    others.fold(most.clone(), |cell, (name, letters)| format!("{cell}, {name} {letters}"))
}
