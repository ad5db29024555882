//! Money from one account to another, as in `transfer.c`: two files, and no code that cleans up.
//!
//! `specrun -- transfer FROM TO AMOUNT`

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::process::ExitCode;

/// What `transfer` is aborted with when there is too little money.
const TOO_LITTLE: i32 = 2;

fn balance(account: &mut File) -> std::io::Result<i64> {
    let mut text = String::new();
    account.rewind()?;
    account.read_to_string(&mut text)?;
    text.trim().parse().map_err(std::io::Error::other)
}

fn set_balance(account: &mut File, balance: i64) -> std::io::Result<()> {
    account.set_len(0)?;
    account.rewind()?;
    writeln!(account, "{balance}")
}

fn transfer(from: &mut File, to: &mut File, amount: i64) -> Result<i64, mojave::Aborted> {
    mojave::speculate(|_| {
        let (mine, theirs) = (balance(from)?, balance(to)?);
        set_balance(from, mine - amount)?;
        set_balance(to, theirs + amount)?;
        match mojave::Code::new(TOO_LITTLE) {
            Some(code) if mine < amount => Err(code),
            _ => Ok(mine - amount),
        }
    })
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [from, to, amount] = &words[..] else {
        eprintln!("usage: transfer FROM TO AMOUNT");
        return ExitCode::from(2);
    };
    let open = |path: &String| File::options().read(true).write(true).open(path);
    let (Ok(mut from), Ok(mut to), Ok(amount)) = (open(from), open(to), amount.parse()) else {
        eprintln!("transfer: there are no such accounts, or the amount is no number");
        return ExitCode::from(2);
    };
    match transfer(&mut from, &mut to, amount) {
        Ok(left) => println!("transferred {amount}; {left} left"),
        Err(why) => {
            println!("nothing was transferred: {why}");
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}
