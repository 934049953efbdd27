//! The architecture as the design states it, over the source as it is written:
//!
//! - [`homes`]: each dependency has one home, `unsafe` states why it is safe, only one file prints, and modules
//!   import in one direction;
//! - [`circles`]: no file and no folder imports itself by way of others, neither between modules nor inside one;
//! - [`words`]: the words that the field's terms replaced do not come back.
//!
//! Each rule has faults planted for it, on files in memory, that it must report.

mod circles;
mod faults;
mod homes;
mod imports;
mod source;
mod words;

use source::{File, files_under, names_under, project_file};

/// The Rust files of the program, the library and the CPU's loops.
fn sources() -> Vec<File> {
    let files = [files_under("src", "rs"), files_under("kernels/cpu/src", "rs")].concat();
    assert!(files.len() > 50, "only {} source files found", files.len());
    files
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} complaints\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn dependencies_and_modules_keep_their_places() {
    assert!(homes::table_is_in_order());
    let mut files = sources();
    files.extend(files_under("kernels/cpu/tests", "rs"));
    assert_none(&homes::complaints(&files));
}

#[test]
fn no_file_imports_itself_by_way_of_others() {
    assert_none(&circles::complaints(&sources()));
}

#[test]
fn no_folder_imports_itself_by_way_of_others() {
    assert_none(&circles::complaints_of_folders(&sources()));
}

#[test]
fn replaced_words_stay_out_of_the_source() {
    let mut files = sources();
    files.extend(files_under("examples", "rs"));
    let mut found = words::complaints(&files);
    for page in files_under("src", "html").iter().chain(&files_under("examples", "json")) {
        found.extend(words::complaints_of_page(page));
    }
    assert_none(&found);
}

#[test]
fn replaced_words_stay_out_of_names_of_files_and_targets() {
    let folders =
        ["src", "tests", "examples", "fuzz/fuzz_targets", "kernels/cpu/src"].map(names_under).concat();
    let makefile = std::fs::read_to_string(project_file("Makefile")).unwrap();
    let targets = words::names_of_makefile(&makefile);
    assert!(targets.contains(&"demo") && targets.contains(&"SOAK_FILES"), "{targets:?}");
    assert_none(&words::complaints_of_names(folders.iter().map(String::as_str).chain(targets)));
}
