//! Who depends on whom: as a tree, in the dot language, as a picture.

use super::escaped;
use super::why::{depends_on, word};
use mojavefs::id::SpecId;
use mojavefs::protocol::SpecStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const BOX_WIDTH: usize = 240;
const BOX_HEIGHT: usize = 48;
const GAP_X: usize = 40;
const GAP_Y: usize = 64;
/// How much of a command is shown, in characters.
const LABEL_MAX: usize = 30;

fn label(status: &SpecStatus) -> String {
    let command = escaped(&status.info.command);
    match command.char_indices().nth(LABEL_MAX) {
        Some((end, _)) => format!("{}…", &command[..end]),
        None => command,
    }
}

/// As text: below each speculation those that depend on it.
pub(super) fn tree(all: &[SpecStatus]) -> String {
    let mut below: BTreeMap<SpecId, Vec<(&SpecStatus, String)>> = BTreeMap::new();
    for status in all {
        for (on, why) in depends_on(status) {
            below.entry(on).or_default().push((status, why));
        }
    }
    let known: BTreeSet<SpecId> = all.iter().map(|status| status.id).collect();
    let free = |status: &&SpecStatus| !depends_on(status).iter().any(|(on, _)| known.contains(on));
    let mut text = String::new();
    let mut shown = BTreeSet::new();
    let roots: Vec<&SpecStatus> = all.iter().filter(free).collect();
    // In a ring nobody is free: it is entered at its oldest.
    for status in roots.into_iter().chain(all) {
        if !shown.contains(&status.id) {
            branch(&mut text, &below, status, (0, ""), &mut shown);
        }
    }
    text
}

fn branch(
    text: &mut String,
    below: &BTreeMap<SpecId, Vec<(&SpecStatus, String)>>,
    status: &SpecStatus,
    (depth, why): (usize, &str),
    shown: &mut BTreeSet<SpecId>,
) {
    let again = if shown.insert(status.id) { "" } else { " …" };
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    let line = format!("{} {} {}{why}{again}", status.id, word(status), label(status));
    let lead = if depth == 0 { String::new() } else { format!("{}└─ ", "   ".repeat(depth - 1)) };
    let _ = writeln!(text, "{lead}{line}");
    if again.is_empty() {
        for (next, why) in below.get(&status.id).into_iter().flatten() {
            branch(text, below, next, (depth + 1, why), shown);
        }
    }
}

/// In the dot language of Graphviz: an arrow leads from a speculation to what it depends on.
pub(super) fn dot(all: &[SpecStatus]) -> String {
    let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = String::from("digraph speculations {\n  rankdir=BT;\n  node [shape=box];\n");
    for status in all {
        let _ =
            writeln!(text, "  {} [label=\"{} {}\\n{}\"];", status.id, status.id, word(status), quote(&label(status)));
        for (on, why) in depends_on(status) {
            let _ = writeln!(text, "  {} -> {on} [label=\"{}\"];", status.id, quote(&why));
        }
    }
    text + "}\n"
}

/// How far above the ground each speculation stands: one more than the highest that it depends on; rings are cut.
fn levels(all: &[SpecStatus]) -> BTreeMap<SpecId, usize> {
    let mut level: BTreeMap<SpecId, usize> = all.iter().map(|status| (status.id, 0)).collect();
    for _ in 0..all.len() {
        let mut changed = false;
        for status in all {
            let under =
                depends_on(status).into_iter().filter_map(|(on, _)| level.get(&on)).max().map(|level| level + 1);
            // A level above the number of speculations is that of a ring.
            if let Some(under) = under.filter(|under| *under < all.len() && *under > level[&status.id]) {
                level.insert(status.id, under);
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    level
}

/// As an SVG picture: what others depend on stands at the top.
pub(super) fn svg(all: &[SpecStatus]) -> String {
    let level = levels(all);
    let mut rows: BTreeMap<usize, Vec<&SpecStatus>> = BTreeMap::new();
    all.iter().for_each(|status| rows.entry(level[&status.id]).or_default().push(status));
    let mut at: BTreeMap<SpecId, (usize, usize)> = BTreeMap::new();
    for (row, statuses) in rows.values().enumerate() {
        for (column, status) in statuses.iter().enumerate() {
            at.insert(status.id, (20 + column * (BOX_WIDTH + GAP_X), 20 + row * (BOX_HEIGHT + GAP_Y)));
        }
    }
    let width = 40 + rows.values().map(Vec::len).max().unwrap_or(1) * (BOX_WIDTH + GAP_X) - GAP_X;
    let height = 40 + rows.len().max(1) * (BOX_HEIGHT + GAP_Y) - GAP_Y;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<defs><marker id=\"a\" markerWidth=\"8\" markerHeight=\"8\" refX=\"8\" refY=\"4\" \
         orient=\"auto\"><path d=\"M0,0 L8,4 L0,8 z\"/></marker></defs>\n"
    );
    for status in all {
        for (on, why) in depends_on(status) {
            if let Some(to) = at.get(&on) {
                arrow(&mut text, at[&status.id], *to, &why);
            }
        }
    }
    for status in all {
        let (x, y) = at[&status.id];
        let _ = writeln!(
            text,
            "<rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" rx=\"6\" fill=\"#eef3fb\" \
             stroke=\"#456\"/><text x=\"{}\" y=\"{}\" font-weight=\"bold\">{} {}</text><text x=\"{}\" y=\"{}\">{}</text>",
            x + 10,
            y + 19,
            status.id,
            word(status),
            x + 10,
            y + 37,
            escape(&label(status))
        );
    }
    text + "</svg>\n"
}

fn arrow(text: &mut String, (from_x, from_y): (usize, usize), (to_x, to_y): (usize, usize), why: &str) {
    let (x1, x2) = (from_x + BOX_WIDTH / 2, to_x + BOX_WIDTH / 2);
    // In a ring an arrow may lead down as well.
    let (y1, y2) = if from_y > to_y { (from_y, to_y + BOX_HEIGHT) } else { (from_y + BOX_HEIGHT, to_y + BOX_HEIGHT) };
    let _ = writeln!(
        text,
        "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#456\" marker-end=\"url(#a)\"/>\
         <text x=\"{}\" y=\"{}\" fill=\"#456\">{}</text>",
        (x1 + x2) / 2 + 6,
        (y1 + y2) / 2,
        escape(why)
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use mojavefs::protocol::{JobInfo, Joined, SpecState};

    fn job(id: u64, on: &[u64]) -> SpecStatus {
        let joined =
            |spec: &u64| Joined { spec: SpecId(*spec), path: b"a<b".to_vec(), what: "content".into(), back: None };
        SpecStatus {
            id: SpecId(id),
            state: SpecState::Running,
            info: JobInfo { uid: 0, pid: 0, command: format!("job \"{id}\""), dirs: Vec::new() },
            since: 0,
            changes: 0,
            bytes: 0,
            parent: None,
            conflicts: Vec::new(),
            joined: on.iter().map(joined).collect(),
            owns: Vec::new(),
            ended: false,
            sealed: false,
        }
    }

    #[test]
    fn a_diamond_is_shown_once() {
        let all = [job(1, &[]), job(2, &[1]), job(3, &[1]), job(4, &[2, 3])];
        let text = tree(&all);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("└─ 4 running job \"4\": read `a<b` (content) …"), "{text}");
        assert_eq!(levels(&all).into_values().collect::<Vec<_>>(), [0, 1, 1, 2]);
        assert!(svg(&all).contains("read `a&lt;b`"));
        assert_eq!(dot(&all).matches("->").count(), 4);
    }

    #[test]
    fn a_ring_ends() {
        let all = [job(1, &[2]), job(2, &[1])];
        assert_eq!(tree(&all).lines().count(), 3);
        assert_eq!(svg(&all).matches("<line").count(), 2);
    }
}
