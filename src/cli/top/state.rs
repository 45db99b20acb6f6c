//! The state of the screen, and what keys do to it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::widgets::TableState;
use serde_json::Value;

use super::feed::{Seen, Wish};
use super::sort::Sort;

/// All that is shown.
pub(super) struct State {
    pub(super) status: Value,
    pub(super) sessions: Vec<Value>,
    /// All sessions that there are.
    pub(super) all: u64,
    /// Shards that have not told theirs in time.
    pub(super) missing_shards: Vec<Value>,
    pub(super) sort: Sort,
    pub(super) table: TableState,
    pub(super) mode: Mode,
    /// The reason why there is nothing new to show.
    pub(super) error: Option<String>,
    /// The outcome of the last wish.
    pub(super) told: Option<String>,
    /// The session that is to be kicked if the next key says so.
    pub(super) asks_kick: Option<String>,
}

/// The lower part of the screen.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Mode {
    List,
    /// One session; none once it has ended.
    One {
        id: String,
        session: Option<Value>,
    },
}

/// A key's consequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    End,
    Ask(Wish),
}

impl State {
    pub(super) fn new(sort: Sort) -> Self {
        Self {
            status: Value::Null,
            sessions: Vec::new(),
            all: 0,
            missing_shards: Vec::new(),
            sort,
            table: TableState::new().with_selected(0),
            mode: Mode::List,
            error: None,
            told: None,
            asks_kick: None,
        }
    }

    /// Takes an answer in.
    pub(super) fn take(&mut self, seen: Seen) {
        match seen {
            Seen::All { status, mut sessions, one } => {
                let chosen = self.chosen();
                self.all = sessions.get("all").and_then(Value::as_u64).unwrap_or_default();
                let mut list = |name| match sessions.get_mut(name).map(Value::take) {
                    Some(Value::Array(list)) => list,
                    _ => Vec::new(),
                };
                self.missing_shards = list("missing_shards");
                self.sessions = list("sessions");
                self.choose_again(chosen.as_deref());
                self.status = status;
                self.error = None;
                // What was seen may be of the session that was shown before.
                if let Mode::One { id, session } = &mut self.mode
                    && one.as_ref().is_none_or(|one| id_of(one) == Some(id))
                {
                    *session = one;
                }
            }
            Seen::Told(text) => self.told = Some(text),
            Seen::Failed(text) => self.error = Some(text),
        }
    }

    /// The id of the session that is chosen or shown.
    fn chosen(&self) -> Option<String> {
        match &self.mode {
            Mode::One { id, session: Some(_) } => Some(id.clone()),
            Mode::One { .. } => None,
            Mode::List => {
                let session = self.sessions.get(self.table.selected()?)?;
                id_of(session).map(str::to_owned)
            }
        }
    }

    /// Stays on the session that was chosen, wherever it stands now.
    fn choose_again(&mut self, chosen: Option<&str>) {
        let found = chosen.and_then(|id| self.sessions.iter().position(|it| id_of(it) == Some(id)));
        let last = self.sessions.len().saturating_sub(1);
        let place = found.or_else(|| self.table.selected()).unwrap_or_default();
        self.table.select(Some(place.min(last)));
    }

    pub(super) fn handle_key(&mut self, key: KeyEvent) -> Action {
        self.told = None;
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Action::End;
        }
        if let Some(id) = self.asks_kick.take() {
            return match key.code {
                KeyCode::Char('y' | 'Y') => Action::Ask(Wish::Kick(id)),
                _ => Action::None,
            };
        }
        match (key.code, &self.mode) {
            (KeyCode::Char('q'), _) => return Action::End,
            (KeyCode::Esc | KeyCode::Backspace | KeyCode::Enter, Mode::One { .. }) => {
                self.mode = Mode::List;
                return Action::Ask(Wish::Show(None));
            }
            (KeyCode::Char('K'), _) => self.asks_kick = self.chosen(),
            (KeyCode::Char('s'), _) => {
                self.sort = self.sort.next();
                return Action::Ask(Wish::Sort(self.sort));
            }
            (KeyCode::Enter, Mode::List) => {
                let Some(id) = self.chosen() else { return Action::None };
                let session = self.table.selected().and_then(|at| self.sessions.get(at)).cloned();
                self.mode = Mode::One { id: id.clone(), session };
                return Action::Ask(Wish::Show(Some(id)));
            }
            (code, Mode::List) => self.step(code),
            _ => {}
        }
        Action::None
    }

    fn step(&mut self, code: KeyCode) {
        let at = self.table.selected().unwrap_or_default();
        let to = match code {
            KeyCode::Down | KeyCode::Char('j') => at + 1,
            KeyCode::Up | KeyCode::Char('k') => at.saturating_sub(1),
            KeyCode::PageDown => at + PAGE,
            KeyCode::PageUp => at.saturating_sub(PAGE),
            KeyCode::Home | KeyCode::Char('g') => 0,
            KeyCode::End | KeyCode::Char('G') => usize::MAX,
            _ => at,
        };
        self.table.select(Some(to.min(self.sessions.len().saturating_sub(1))));
    }
}

/// Sessions that a page up or down leaves out.
const PAGE: usize = 10;

fn id_of(session: &Value) -> Option<&str> {
    session.get("id")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(ids: &[&str]) -> Seen {
        let sessions: Vec<_> = ids.iter().map(|id| json!({"id": id})).collect();
        let sessions = json!({"sessions": sessions, "matching": ids.len(), "all": ids.len()});
        Seen::All { status: json!({}), sessions, one: None }
    }

    fn press(state: &mut State, code: KeyCode) -> Action {
        state.handle_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn the_choice_stays_with_its_session() {
        let mut state = State::new(Sort::InFlight);
        state.take(seen(&["0.1.0", "0.2.0", "0.3.0"]));
        press(&mut state, KeyCode::Down);
        state.take(seen(&["0.2.0", "0.9.0", "0.1.0"]));
        assert_eq!(state.chosen().as_deref(), Some("0.2.0"));
        press(&mut state, KeyCode::End);
        press(&mut state, KeyCode::Down);
        assert_eq!(state.chosen().as_deref(), Some("0.1.0"));
        state.take(seen(&[]));
        assert_eq!(state.chosen(), None);
        assert_eq!(press(&mut state, KeyCode::Enter), Action::None);
    }

    #[test]
    fn a_kick_is_asked_about_first() {
        let mut state = State::new(Sort::Number);
        state.take(seen(&["0.1.0"]));
        for no in [KeyCode::Char('n'), KeyCode::Esc, KeyCode::Enter, KeyCode::Char('K')] {
            assert_eq!(press(&mut state, KeyCode::Char('K')), Action::None);
            assert_eq!(state.asks_kick.as_deref(), Some("0.1.0"));
            assert_eq!(press(&mut state, no), Action::None);
            assert_eq!(state.asks_kick, None);
        }
        press(&mut state, KeyCode::Char('K'));
        let kick = Action::Ask(Wish::Kick("0.1.0".into()));
        assert_eq!(press(&mut state, KeyCode::Char('y')), kick);
    }

    #[test]
    fn a_session_is_shown_until_it_ends() {
        let mut state = State::new(Sort::Number);
        state.take(seen(&["0.1.0"]));
        let show = Action::Ask(Wish::Show(Some("0.1.0".into())));
        assert_eq!(press(&mut state, KeyCode::Enter), show);
        let is_shown = |state: &State| matches!(&state.mode, Mode::One { session: Some(_), .. });
        assert!(is_shown(&state));
        state.take(seen(&[]));
        assert!(!is_shown(&state));
        press(&mut state, KeyCode::Char('K'));
        assert_eq!(state.asks_kick, None, "there is nobody to kick");
        assert_eq!(press(&mut state, KeyCode::Esc), Action::Ask(Wish::Show(None)));
        assert_eq!(state.mode, Mode::List);
        assert_eq!(press(&mut state, KeyCode::Char('s')), Action::Ask(Wish::Sort(Sort::AgeS)));
        assert_eq!(press(&mut state, KeyCode::Char('q')), Action::End);
    }
}
