//! `shaddock top`: a live screen of a running connector, by its admin server.

mod feed;
mod screen;
mod sort;
mod state;

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use ratatui::crossterm::terminal;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::ctl::ServerOptions;
use feed::Feed;
use sort::Sort;
use state::{Action, State};

/// The options of `top`.
#[derive(Debug, Clone, Args)]
#[command(after_help = "Keys: up and down choose a session, Enter shows it, s changes the order, \
    K kicks (it asks first), Esc goes back, q ends. Exit codes: 0 done; 1 no answer; 2 wrong \
    options.")]
pub(crate) struct TopOptions {
    #[command(flatten)]
    server: ServerOptions,

    /// Order of the sessions, those with the most first
    #[arg(long, value_enum, default_value_t = Sort::InFlight)]
    sort: Sort,

    /// Seconds between two looks
    #[arg(long, value_name = "S", default_value_t = 1)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=EVERY_S_MAX))]
    every: u64,

    /// Print one screen as text, and end
    #[arg(long)]
    once: bool,
}

const EVERY_S_MAX: u64 = 3_600;

/// Columns of a screen that is printed to something that has none.
const COLUMNS: u16 = 120;
/// The longest wait for a key before answers are looked for.
const KEY_PATIENCE: Duration = Duration::from_millis(50);

/// Shows the screen until `q`, or prints it once.
pub(crate) fn run(options: &TopOptions) -> ExitCode {
    let shown = if options.once { print(options) } else { watch(options) };
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            writeln!(io::stderr(), "shaddock top: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

fn print(options: &TopOptions) -> anyhow::Result<()> {
    let client = options.server.client()?;
    let mut state = State::new(options.sort);
    state.take(feed::look(&client, options.sort, None));
    if let Some(error) = &state.error {
        anyhow::bail!("{error}");
    }
    let is_wide = io::stdout().is_terminal();
    let size = is_wide.then(terminal::size).and_then(Result::ok);
    let width = size.map_or(COLUMNS, |(width, _)| width);
    let text = text_of(&mut state, width)?;
    io::stdout().write_all(text.as_bytes()).context("can't print")
}

/// The screen as text, as long as there is something to show.
fn text_of(state: &mut State, width: u16) -> anyhow::Result<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, screen::height(state)))?;
    terminal.draw(|frame| screen::draw(frame, state, screen::Foot::None))?;
    Ok(lines_of(terminal.backend().buffer()))
}

fn lines_of(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width.max(1));
    let lines = buffer.content.chunks(width).map(|cells| {
        let line: String = cells.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    });
    lines.collect()
}

fn watch(options: &TopOptions) -> anyhow::Result<()> {
    anyhow::ensure!(
        io::stdout().is_terminal() && io::stdin().is_terminal(),
        "it needs a terminal; --once prints one screen as text"
    );
    let is_ended = Arc::<AtomicBool>::default();
    for signal in [SIGHUP, SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&is_ended))?;
    }
    let client = options.server.client()?;
    let feed = Feed::start(client, options.sort, Duration::from_secs(options.every))?;
    let mut state = State::new(options.sort);
    let mut terminal = ratatui::try_init().context("can't draw on this terminal")?;
    let shown = show(&mut terminal, &feed, &mut state, &is_ended);
    ratatui::restore();
    shown
}

fn show(
    terminal: &mut ratatui::DefaultTerminal,
    feed: &Feed,
    state: &mut State,
    is_ended: &AtomicBool,
) -> anyhow::Result<()> {
    let mut is_new = true;
    while !is_ended.load(Ordering::Relaxed) {
        if is_new {
            terminal.draw(|frame| screen::draw(frame, state, screen::Foot::Keys))?;
        }
        is_new = false;
        if event::poll(KEY_PATIENCE)? {
            is_new = true;
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    match state.handle_key(key) {
                        Action::None => {}
                        Action::End => return Ok(()),
                        Action::Ask(wish) => feed.ask(wish),
                    }
                }
                _ => {}
            }
        }
        for seen in feed.seen() {
            is_new = true;
            state.take(seen);
        }
    }
    Ok(())
}
