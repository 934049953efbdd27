//! Circles in the graph of files, whose edges are imports, and in the graph of folders.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::imports::Modules;
use crate::source::File;

/// For each file, the files it depends on, each with the places that say so and what they say.
type Graph = BTreeMap<String, BTreeMap<String, Imports>>;
type Imports = BTreeMap<Place, Vec<String>>;
/// File and line.
type Place = (String, usize);

/// A complaint for each circle of files: of every set of files that reach each other, the smallest circle, then the
/// smallest without the imports of that, and so on until none is left.
pub fn complaints(files: &[File]) -> Vec<String> {
    circles(&graph(&Modules::without_tests(files)))
}

/// The same of modules that are folders: `demux/input.rs` may not import a file of `decode/` while `decode/filter.rs`
/// imports one of `demux/`. The folder's own `mod.rs`, which knows all of them, is left out.
pub fn complaints_of_folders(files: &[File]) -> Vec<String> {
    let graph = graph(&Modules::without_tests(files));
    let folders = files.iter().flat_map(|(path, _)| folders_of(path)).collect::<BTreeSet<_>>();
    folders.iter().flat_map(|folder| circles(&graph_within(&graph, folder, &folders))).collect()
}

fn circles(graph: &Graph) -> Vec<String> {
    let mut found = Vec::new();
    let mut graph = graph.clone();
    for component in components(&graph) {
        if component.len() > 2 {
            found.push(format!("{} import each other:\n  {}", component.len(), component.join("\n  ")));
        }
        while let Some(circle) = smallest_circle(&graph, &component) {
            found.push(described(&graph, &circle));
            for edge in circle.windows(2) {
                graph.get_mut(&edge[0]).unwrap().remove(&edge[1]);
            }
        }
    }
    found
}

fn graph(modules: &Modules) -> Graph {
    let mut graph = Graph::new();
    for reference in &modules.references {
        let from = modules.file_of(&reference.module);
        let Some(to) = modules.file_reached(reference) else { continue };
        let edge = graph.entry(from.to_owned()).or_default().entry(to.to_owned()).or_default();
        let texts = edge.entry((from.to_owned(), reference.line)).or_default();
        if !texts.contains(&reference.text()) {
            texts.push(reference.text());
        }
    }
    graph
}

/// All folders that hold a file.
fn folders_of(path: &str) -> Vec<String> {
    path.match_indices('/').map(|(end, _)| path[..end].to_owned()).collect()
}

/// The graph of what lies in a folder: its files, and its folders as one each. Edges between two files are left out.
fn graph_within(graph: &Graph, folder: &str, folders: &BTreeSet<String>) -> Graph {
    let child = |path: &str| {
        let inner = path.strip_prefix(folder)?.strip_prefix('/')?;
        let name = inner.split('/').next()?.trim_end_matches(".rs");
        (!["mod", "lib"].contains(&name)).then(|| format!("{folder}/{name}"))
    };
    let mut within = Graph::new();
    for (from, edges) in graph {
        for (to, imports) in edges {
            let (Some(from), Some(to)) = (child(from), child(to)) else { continue };
            if from != to && (folders.contains(&from) || folders.contains(&to)) {
                within.entry(from).or_default().entry(to).or_default().extend(imports.clone());
            }
        }
    }
    within
}

/// The sets of more than one file that reach each other.
fn components(graph: &Graph) -> Vec<Vec<String>> {
    let reached: BTreeMap<_, _> = graph.keys().map(|file| (file, all_reached(graph, file))).collect();
    let mut found: Vec<Vec<String>> = Vec::new();
    for (file, ahead) in &reached {
        let together = |other: &&String| reached.get(other).is_some_and(|back| back.contains(*file));
        let component: Vec<_> = ahead.iter().filter(together).cloned().collect();
        if component.first() == Some(file) {
            found.push(component);
        }
    }
    found
}

fn all_reached(graph: &Graph, start: &str) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    let mut waiting = vec![start.to_owned()];
    while let Some(file) = waiting.pop() {
        for next in graph.get(&file).into_iter().flat_map(|edges| edges.keys()) {
            if reached.insert(next.clone()) {
                waiting.push(next.clone());
            }
        }
    }
    reached
}

/// The files of the smallest circle within `component`, the first once more at the end.
fn smallest_circle(graph: &Graph, component: &[String]) -> Option<Vec<String>> {
    let circles = component.iter().filter_map(|file| circle_through(graph, file));
    circles.min_by_key(Vec::len)
}

/// Breadth first, so that the first way back is the shortest.
fn circle_through(graph: &Graph, start: &str) -> Option<Vec<String>> {
    let mut before: BTreeMap<&str, &str> = BTreeMap::new();
    let mut waiting = VecDeque::from([start]);
    while let Some(file) = waiting.pop_front() {
        for next in graph.get(file).into_iter().flat_map(|edges| edges.keys()) {
            if next == start {
                return Some(way_back(&before, start, file));
            }
            if !before.contains_key(next.as_str()) {
                before.insert(next, file);
                waiting.push_back(next);
            }
        }
    }
    None
}

fn way_back(before: &BTreeMap<&str, &str>, start: &str, last: &str) -> Vec<String> {
    let mut circle = vec![start.to_owned()];
    let mut file = last;
    while file != start {
        circle.push(file.to_owned());
        file = before[file];
    }
    circle.push(start.to_owned());
    circle.reverse();
    circle
}

fn described(graph: &Graph, circle: &[String]) -> String {
    let mut text = format!("import circle: {}", circle.join(" -> "));
    for edge in circle.windows(2) {
        for ((file, line), texts) in &graph[&edge[0]][&edge[1]] {
            text += &format!("\n    {file}:{line}: {}", texts.join(", "));
        }
    }
    text
}
