//! A `make` that looks for the cheapest way: a target may have several rules, each with its cost. Every way is really tried,
//! command by command; one that fails, or is dearer than the best so far, never happened. What stays is the best.
//!
//! `specrun -- cheapest RULES TARGET`, where RULES is a file of rules like these two:
//!
//! ```text
//! lib 8: source
//!     cc -c source -o lib
//! lib 2: cache
//!     cp cache lib
//! ```

use mojave::{Aborted, Code};
use std::path::Path;
use std::process::{Command, ExitCode, exit};

/// More than any plan costs.
const TOO_DEAR: i32 = i32::MAX;

struct Rule {
    target: String,
    cost: i32,
    needs: Vec<String>,
    command: String,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Make(&'a str),
    Run(&'a Rule),
}

struct Search {
    rules: Vec<Rule>,
    /// The cost of the plan that shall stay; none while they are only tried.
    wanted: Option<i32>,
}

impl Search {
    /// The least cost by which all steps can be taken, the last one first, if it is less than `bound`; else `bound`.
    fn cost(&self, mut steps: Vec<Step<'_>>, spent: i32, bound: i32) -> i32 {
        match steps.pop() {
            None => spent,
            Some(Step::Make(target)) if Path::new(target).exists() => self.cost(steps, spent, bound),
            Some(Step::Make(target)) => self.cheapest(target, &steps, spent, bound),
            Some(Step::Run(rule)) if succeeds(&rule.command) => self.cost(steps, spent, bound),
            Some(Step::Run(_)) => bound,
        }
    }

    /// Tries one rule after the other. All that comes back from a try is the code that it was aborted with: its cost.
    fn cheapest(&self, target: &str, steps: &[Step<'_>], spent: i32, bound: i32) -> i32 {
        let is_under_way =
            |rule: &Rule| steps.iter().any(|step| matches!(step, Step::Run(of) if std::ptr::eq(*of, rule)));
        let mut best = bound;
        for rule in self.rules.iter().filter(|rule| rule.target == target && !is_under_way(rule)) {
            if spent.saturating_add(rule.cost) >= best {
                continue;
            }
            let tried = mojave::speculate(|_| {
                let needs = rule.needs.iter().map(|need| Step::Make(need));
                let steps = steps.iter().copied().chain([Step::Run(rule)]).chain(needs).collect();
                let cost = self.cost(steps, spent + rule.cost, best);
                match Some(cost) == self.wanted {
                    true => Ok(cost),
                    false => Err(Code::new(cost).unwrap_or(Code::FAILED)),
                }
            });
            match tried {
                Ok(cost) => return cost,
                Err(Aborted::Code(cost)) => best = best.min(cost.get()),
                Err(Aborted::Refused(why)) => {
                    eprintln!("cheapest: cannot speculate: {why}");
                    exit(2);
                }
            }
        }
        best
    }
}

fn succeeds(command: &str) -> bool {
    Command::new("sh").args(["-c", command]).status().is_ok_and(|status| status.success())
}

/// A line `TARGET COST: NEEDS`, and below it the command, indented.
fn parse(text: &str) -> Option<Vec<Rule>> {
    let mut rules: Vec<Rule> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with([' ', '\t']) {
            rules.last_mut()?.command.push_str(&format!("{}\n", line.trim()));
            continue;
        }
        let (head, needs) = line.split_once(':')?;
        let (target, cost) = head.split_once(' ')?;
        let cost = cost.trim().parse().ok().filter(|cost| *cost > 0)?;
        let needs = needs.split_whitespace().map(str::to_owned).collect();
        rules.push(Rule { target: target.to_owned(), cost, needs, command: String::new() });
    }
    Some(rules)
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [file, target] = &words[..] else {
        eprintln!("usage: cheapest RULES TARGET");
        return ExitCode::from(2);
    };
    let Some(rules) = std::fs::read_to_string(file).ok().and_then(|text| parse(&text)) else {
        eprintln!("cheapest: {file} is no file of rules (`TARGET COST: NEEDS`, and indented below it the command)");
        return ExitCode::from(2);
    };
    let mut search = Search { rules, wanted: None };
    let best = search.cost(vec![Step::Make(target)], 0, TOO_DEAR);
    if best == TOO_DEAR {
        eprintln!("cheapest: there is no way to make {target}");
        return ExitCode::FAILURE;
    }
    search.wanted = Some(best);
    search.cost(vec![Step::Make(target)], 0, best + 1);
    println!("made {target} for {best}");
    ExitCode::SUCCESS
}
