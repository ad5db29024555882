//! `mojavefs diff`

use super::json::{with_path, with_paths};
use super::which::{EXIT_USAGE, Which};
use super::{Where, in_patch, shown};
use crate::control::{ask, unexpected};
use crate::limits::PATCH_BYTES_MAX;
use crate::output::{err, out};
use clap::Args;
use mojavefs::id::SpecId;
use mojavefs::protocol::control::{Answer, Ask, Side};
use mojavefs::protocol::fault::{Fault, FaultKind};
use mojavefs::protocol::file::{Attr, FileKind};
use mojavefs::protocol::{Change, ChangeKind, Reply, SpecOp};
use serde_json::json;
use similar::TextDiff;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

#[derive(Args)]
#[command(after_help = "\
Each line begins with what happened: A added, M changed, D removed, R renamed, T other attributes only. A patch has the changes \
of text files; renames, modes, links and empty files are named in it, not applied.")]
pub(super) struct Diff {
    #[command(flatten)]
    which: Which,
    /// What changed in text files, as a unified diff with names as `patch -p1` and `git apply` read them
    #[arg(long, conflicts_with_all = ["stat", "json"])]
    patch: bool,
    /// Sizes before and after, and a sum
    #[arg(long, conflicts_with = "json")]
    stat: bool,
    /// As JSON: a list of objects
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    filesystem: Where,
}

impl Diff {
    pub(super) fn run(&self) -> Result<ExitCode, Fault> {
        let (filesystem, Some(spec)) = self.filesystem.find_with(&self.which)? else {
            return Ok(ExitCode::from(EXIT_USAGE));
        };
        let stream = filesystem.connect()?;
        let (changes, with) = all_changes(&stream, spec)?;
        if let Some(note) = about_ring(spec, &with) {
            err!("mojavefs: {note}");
        }
        match () {
            () if self.json => {
                let list: Vec<_> = changes.iter().map(as_json).collect();
                let text = serde_json::to_string_pretty(&list).map_err(|e| Fault::new(FaultKind::Io, e.to_string()))?;
                out!("{text}");
            }
            () if self.patch => {
                for change in &changes {
                    show_patch((&stream, spec), change)?;
                }
            }
            () if self.stat => show_stat(&changes),
            () => changes.iter().for_each(|change| out!("{}", line(change))),
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show_patch(of: (&UnixStream, SpecId), change: &Change) -> Result<(), Fault> {
    out!("{}", line(change));
    let old_path = match &change.kind {
        ChangeKind::Renamed { from, .. } => from,
        _ => change.old_path.as_ref().unwrap_or(&change.path),
    };
    let before = text(of, Side::Before, old_path, change.before.as_ref())?;
    let after = text(of, Side::After, &change.path, change.after.as_ref())?;
    match (before, after) {
        (Content::Text(before), Content::Text(after)) if before == after => {}
        (Content::Text(before), Content::Text(after)) => {
            let head = |letter: &str, path: &[u8], there: &Option<Attr>| match there {
                Some(_) => in_patch(&[letter.as_bytes(), path].concat()),
                None => "/dev/null".to_owned(),
            };
            let (old, new) = (head("a/", old_path, &change.before), head("b/", &change.path, &change.after));
            let diff = TextDiff::configure().newline_terminated(true).diff_slices(&lines(&before), &lines(&after));
            crate::output::say(format_args!("{}", diff.unified_diff().header(&old, &new)));
        }
        (Content::Denied, _) | (_, Content::Denied) => out!("this user may not read the content"),
        (Content::TooLarge, _) | (_, Content::TooLarge) => out!("the files are too large to be compared"),
        _ => out!("binary files differ"),
    }
    Ok(())
}

fn text((stream, spec): (&UnixStream, SpecId), side: Side, path: &[u8], attr: Option<&Attr>) -> Result<Content, Fault> {
    let Some(attr) = attr.filter(|attr| matches!(attr.kind, FileKind::Regular | FileKind::Symlink)) else {
        return Ok(Content::Text(String::new()));
    };
    if attr.size > PATCH_BYTES_MAX {
        return Ok(Content::TooLarge);
    }
    let content = Ask::Content { spec, side, path: path.to_vec(), bytes_max: PATCH_BYTES_MAX };
    match ask(stream, &content, None) {
        Ok((Answer::Content(bytes), _)) if bytes.contains(&0) => Ok(Content::Binary),
        Ok((Answer::Content(bytes), _)) => Ok(String::from_utf8(bytes).map_or(Content::Binary, Content::Text)),
        Ok((other, _)) => Err(unexpected(&other)),
        Err(fault) if fault.kind == FaultKind::AccessDenied => Ok(Content::Denied),
        Err(fault) => Err(fault),
    }
}

/// As `patch` knows lines: nothing but a newline ends one.
fn lines(text: &str) -> Vec<&str> {
    text.split_inclusive('\n').collect()
}

enum Content {
    Text(String),
    Binary,
    TooLarge,
    Denied,
}

/// What is to be known of a diff that is shown together with those of others.
pub(super) fn about_ring(spec: SpecId, with: &[SpecId]) -> Option<String> {
    let others = with.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let text = || {
        format!(
            "{spec} and {others} depend on each other and are decided together: what {spec} changed is shown as all of them \
             leave it, compared with what is there without them"
        )
    };
    (!with.is_empty()).then(text)
}

/// Every change, by path, and those whose work is in it because they depend on each other.
pub(super) fn all_changes(stream: &UnixStream, spec: SpecId) -> Result<(Vec<Change>, Vec<SpecId>), Fault> {
    let mut changes = Vec::new();
    let mut from = None;
    loop {
        match ask(stream, &Ask::Speculation(SpecOp::Diff { spec, from }), None)?.0 {
            Answer::Reply(Reply::Diff(page)) => {
                changes.extend(page.changes);
                match page.next {
                    Some(next) => from = Some(next),
                    None => {
                        changes.sort_by(|a, b| a.path.cmp(&b.path));
                        return Ok((changes, page.with));
                    }
                }
            }
            other => return Err(unexpected(&other)),
        }
    }
}

/// One change on one line.
pub(super) fn line(change: &Change) -> String {
    let path = shown(&change.path);
    let slash = match change.after.as_ref().or(change.before.as_ref()) {
        Some(attr) if attr.kind == FileKind::Directory => "/",
        _ => "",
    };
    match &change.kind {
        ChangeKind::Added => format!("A  {path}{slash}"),
        ChangeKind::Removed => format!("D  {path}{slash}"),
        ChangeKind::Modified => format!("M  {path}{}", notes(change)),
        ChangeKind::Renamed { from, modified } => {
            let also = if *modified { ", modified" } else { "" };
            format!("R  {}{slash} -> {path}{slash}{also}", shown(from))
        }
        ChangeKind::Attributes => format!("T  {path}{slash}{}", notes(change)),
    }
}

/// What a file is called in a sentence.
fn what(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "link",
        FileKind::Fifo => "fifo",
        FileKind::Socket => "socket",
        FileKind::CharDevice | FileKind::BlockDevice => "device",
    }
}

/// What else changed: mode, owner, extended attributes.
fn notes(change: &Change) -> String {
    let mut notes = Vec::new();
    if let (Some(before), Some(after)) = (&change.before, &change.after) {
        if before.kind != after.kind {
            notes.push(format!("{} -> {}", what(before.kind), what(after.kind)));
        }
        if before.mode != after.mode {
            notes.push(format!("mode {:o} -> {:o}", before.mode, after.mode));
        }
        if (before.uid, before.gid) != (after.uid, after.gid) {
            notes.push(format!("owner {}:{} -> {}:{}", before.uid, before.gid, after.uid, after.gid));
        }
        if change.kind == ChangeKind::Attributes && before.mtime != after.mtime {
            notes.push("times".to_owned());
        }
    }
    notes.extend(change.xattrs.iter().map(|name| format!("xattr {}", shown(name))));
    match notes.is_empty() {
        true => String::new(),
        false => format!(" ({})", notes.join(", ")),
    }
}

fn show_stat(changes: &[Change]) {
    let bytes = |attr: Option<&Attr>| attr.map_or(0, |attr| attr.size);
    let (mut before, mut after) = (0, 0);
    for change in changes {
        let (old, new) = (bytes(change.before.as_ref()), bytes(change.after.as_ref()));
        before += old;
        after += new;
        out!("{}  {old} -> {new} bytes", line(change));
    }
    out!("{}, {before} -> {after} bytes", super::count(changes.len() as u64, "change"));
}

fn as_json(change: &Change) -> serde_json::Value {
    let (kind, from) = match &change.kind {
        ChangeKind::Added => ("added", None),
        ChangeKind::Removed => ("removed", None),
        ChangeKind::Modified => ("modified", None),
        ChangeKind::Renamed { from, .. } => ("renamed", Some(from)),
        ChangeKind::Attributes => ("attributes", None),
    };
    let attr = |attr: &Option<Attr>| {
        attr.as_ref().map(|a| json!({"size": a.size, "mode": format!("{:o}", a.mode), "uid": a.uid, "gid": a.gid}))
    };
    let object = json!({"change": kind, "from": null, "before": attr(&change.before), "after": attr(&change.after)});
    let object = with_path(object, "path", &change.path);
    let object = match from {
        Some(from) => with_path(object, "from", from),
        None => object,
    };
    let xattrs: Vec<&[u8]> = change.xattrs.iter().map(|name| &name[..]).collect();
    with_paths(object, "xattrs", &xattrs)
}
