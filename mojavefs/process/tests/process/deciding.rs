//! Levels, votes, codes.

use crate::alone::{abort, alone, code, commit, enter, exit_code};
use mojave::{Aborted, DecisionError, Outcome};

#[test]
fn an_abort_returns_its_code_from_the_entry() {
    alone(|| {
        for expected in [1, 7, i32::MAX] {
            match enter() {
                None => abort(expected),
                got => assert_eq!(got, Some(expected)),
            }
            assert_eq!(mojave::depth(), 0);
        }
    });
}

#[test]
fn an_abort_of_an_outer_level_undoes_the_inner_ones() {
    alone(|| {
        let mut trace = vec![0];
        let got = enter();
        if got.is_none() {
            trace.push(1);
            let outer = mojave::current().unwrap();
            assert_eq!(enter(), None);
            trace.push(2);
            assert_eq!(enter(), None);
            trace.push(3);
            assert_eq!(mojave::depth(), 3);
            panic!("{}", mojave::abort(outer, code(9)));
        }
        assert_eq!((got, trace), (Some(9), vec![0]));
    });
}

#[test]
fn an_inner_abort_leaves_the_outer_level_as_it_was() {
    alone(|| {
        let mut trace = vec![0];
        assert_eq!(enter(), None);
        trace.push(1);
        for round in 0..5 {
            if enter().is_none() {
                trace.push(100);
                abort(round + 1);
            }
            trace.push(round);
        }
        commit();
        assert_eq!(trace, [0, 1, 0, 1, 2, 3, 4]);
    });
}

#[test]
fn an_inner_commit_is_undone_by_the_outer_abort() {
    alone(|| {
        let mut value = vec![1; 50_000];
        if enter().is_none() {
            let outer = mojave::current().unwrap();
            for step in 0..10 {
                assert_eq!(enter(), None);
                value.fill(step + 2);
                commit();
            }
            panic!("{}", mojave::abort(outer, code(1)));
        }
        assert!(value.iter().all(|value| *value == 1));
    });
}

#[test]
fn a_vote_inside_an_inner_level_counts_with_it_and_falls_with_it() {
    alone(|| {
        assert_eq!(enter(), None);
        let outer = mojave::current().unwrap();
        if enter().is_none() {
            let inner = mojave::current().unwrap();
            mojave::commit(outer).unwrap();
            assert_eq!(mojave::outcome(outer), Some(Outcome::Undecided));
            panic!("{}", mojave::abort(inner, code(1)));
        }
        // The vote was cast by what is undone.
        assert_eq!(mojave::outcome(outer), Some(Outcome::Undecided));
        assert_eq!(mojave::depth(), 1);
        assert_eq!(enter(), None);
        let inner = mojave::current().unwrap();
        mojave::commit(outer).unwrap();
        mojave::commit(inner).unwrap();
        assert_eq!(mojave::outcome(outer), Some(Outcome::Committed));
        assert_eq!(mojave::depth(), 0);
    });
}

#[test]
fn a_vote_that_was_cast_in_a_committed_level_does_not_fall_with_a_later_one() {
    alone(|| {
        let mut value = 1;
        assert_eq!(enter(), None);
        let outer = mojave::current().unwrap();
        value += 1;
        assert_eq!(enter(), None);
        let middle = mojave::current().unwrap();
        assert_eq!(enter(), None);
        mojave::commit(outer).unwrap();
        // The vote is part of the level in the middle from now on.
        commit();
        // As deep as the one that voted.
        if enter().is_none() {
            abort(5);
        }
        mojave::commit(middle).unwrap();
        assert_eq!((mojave::depth(), value), (0, 2));
        assert_eq!([outer, middle].map(mojave::outcome), [Some(Outcome::Committed); 2]);
    });
}

#[test]
fn a_vote_that_was_cast_in_a_committed_level_falls_with_what_that_is_part_of() {
    alone(|| {
        assert_eq!(enter(), None);
        let outer = mojave::current().unwrap();
        if enter().is_none() {
            assert_eq!(enter(), None);
            mojave::commit(outer).unwrap();
            commit();
            abort(5);
        }
        assert_eq!((mojave::depth(), mojave::outcome(outer)), (1, Some(Outcome::Undecided)));
        assert_eq!(enter(), None);
        commit();
        assert_eq!(mojave::depth(), 1, "nobody votes for the outer one any more");
        commit();
    });
}

#[test]
fn what_was_committed_into_a_level_that_is_undone_is_undone() {
    alone(|| {
        let (said, say) = crate::alone::pipe();
        assert_eq!(enter(), None);
        let before = mojave::current().unwrap();
        commit();
        if enter().is_none() {
            assert_eq!(enter(), None);
            let inner = mojave::current().unwrap();
            commit();
            assert_eq!(mojave::outcome(inner), Some(Outcome::Committed));
            std::io::Write::write_all(&mut &say, inner.to_string().as_bytes()).unwrap();
            abort(1);
        }
        drop(say);
        let inner: i32 = std::io::read_to_string(said).unwrap().parse().unwrap();
        assert_eq!(unsafe { spec_outcome(inner) }, 2);
        assert_eq!(mojave::outcome(before), Some(Outcome::Committed));
    });
}

unsafe extern "C" {
    fn spec_outcome(id: i32) -> i32;
}

#[test]
fn a_retry_enters_again_with_its_code() {
    alone(|| {
        let mut value = 1;
        assert_eq!(enter(), None);
        let id = mojave::current().unwrap();
        value += 1;
        let tried = mojave::retried().map_or(0, mojave::Code::get);
        assert_eq!(value, 2);
        if tried < 5 {
            panic!("{}", mojave::retry(id, code(tried + 1)));
        }
        assert_eq!((tried, mojave::depth()), (5, 1));
        commit();
        assert_eq!(mojave::outcome(id), Some(Outcome::Committed));
    });
}

#[test]
fn a_decided_speculation_can_not_be_decided_the_other_way() {
    alone(|| {
        assert_eq!(enter(), None);
        let id = mojave::current().unwrap();
        commit();
        assert_eq!(mojave::commit(id), Ok(()));
        assert_eq!(mojave::abort(id, code(1)), DecisionError::Committed(id));
        let (said, say) = crate::alone::pipe();
        if enter().is_none() {
            let id = mojave::current().unwrap();
            std::io::Write::write_all(&mut &say, format!("{id}").as_bytes()).unwrap();
            abort(1);
        }
        drop(said);
    });
}

#[test]
fn a_closure_that_fails_or_panics_never_happened() {
    alone(|| {
        let mut value = 1;
        let failed = mojave::speculate(|_| {
            value = 2;
            std::fs::read("/does/not/exist")?;
            Ok(())
        });
        assert!(matches!(failed, Err(Aborted::Code(mojave::Code::FAILED))));
        assert_eq!(value, 1);
        std::panic::set_hook(Box::new(|_| {}));
        let panicked = mojave::speculate(|_| -> Result<(), _> {
            value = 3;
            panic!("no")
        });
        drop(std::panic::take_hook());
        assert!(matches!(panicked, Err(Aborted::Code(mojave::Code::PANICKED))));
        assert_eq!(value, 1);
        let done = mojave::speculate(|_| {
            value = 4;
            Ok(value + 1)
        });
        assert_eq!((done.unwrap(), value), (5, 4));
        assert_eq!(mojave::depth(), 0);
    });
}

#[test]
fn a_child_of_a_speculation_speculates_on_its_own() {
    alone(|| {
        assert_eq!(enter(), None);
        let code = exit_code(|| {
            assert_eq!(mojave::depth(), 0);
            let mut value = 1;
            if enter().is_none() {
                value = 2;
                std::hint::black_box(value);
                abort(5);
            }
            value * 10
        });
        assert_eq!(code, 10);
        assert_eq!(mojave::depth(), 1);
        commit();
    });
}

#[test]
fn levels_nest_deep() {
    alone(|| {
        let mut sum = 0u64;
        for level in 0..200u64 {
            if enter().is_some() {
                break;
            }
            sum += level;
            if level == 150 {
                let mut id = mojave::current();
                assert_eq!(mojave::depth(), 151);
                // Ids count up from 1 in a fresh process.
                while let Some(current) = id.filter(|id| id.to_string() != "51") {
                    mojave::commit(current).unwrap();
                    id = mojave::current();
                }
                panic!("{}", mojave::abort(id.unwrap(), code(1)));
            }
        }
        assert_eq!((sum, mojave::depth()), ((0..50).sum(), 50));
        while mojave::current().is_some() {
            commit();
        }
    });
}
