//! Two processes that decide together: what either has written is final when both commit, and was never there when one
//! aborts.
//!
//! `specrun --no-speculation -- together FILE TEXT [TOKEN]` writes TEXT to FILE, says its token, by which the next one owns
//! this one's speculation, too, and commits if it is told `commit` on its standard input.

use mojave::{Branch, Code};
use std::io;
use std::process::ExitCode;

fn enter(token: Option<&String>) -> io::Result<Branch> {
    match token {
        Some(token) => mojave::own(token.parse().map_err(io::Error::other)?),
        None => mojave::enter(),
    }
}

fn run(file: &str, text: &str, token: Option<&String>) -> io::Result<ExitCode> {
    let id = match enter(token)? {
        Branch::Commit(id) => id,
        Branch::Abort(code) => {
            println!("undone, code {}", code.get());
            return Ok(ExitCode::FAILURE);
        }
    };
    std::fs::write(file, text)?;
    println!("{}", mojave::share()?);
    let mut told = String::new();
    io::stdin().read_line(&mut told)?;
    if told.trim() != "commit" {
        return Err(io::Error::other(mojave::abort(id, Code::FAILED)));
    }
    mojave::commit(id).map_err(io::Error::other)?;
    mojave::barrier(None)?;
    println!("final");
    Ok(ExitCode::SUCCESS)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let ([file, text] | [file, text, _]) = &words[..] else {
        eprintln!("usage: together FILE TEXT [TOKEN]");
        return ExitCode::from(2);
    };
    run(file, text, words.get(2)).unwrap_or_else(|error| {
        eprintln!("together: {error}");
        ExitCode::from(2)
    })
}
