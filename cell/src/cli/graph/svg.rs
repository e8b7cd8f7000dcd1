//! A laid out graph as SVG.

use std::fmt::Write;
use std::time::{Duration, UNIX_EPOCH};

use protocol::consensus::{Fame, GraphEvent, GraphView};

use super::layout::{Band, Column, Layout, Placed, lay_out};

/// A witness, and an event that is none.
const RADIUS: (usize, usize) = (10, 6);
/// Title and what stands below it.
const TITLE_HEIGHT: usize = 66;
/// A line of the legend.
const LEGEND_LINE: usize = 24;
/// The members' names.
const NAMES_HEIGHT: usize = 52;
/// Below the lowest band.
const FOOT: usize = 40;
/// Left of title, legend and rounds' names.
const MARGIN: usize = 24;
/// How many lines an event has where they are drawn at their strongest; where it has more, they are fainter.
const LINES_STRONG: usize = 3;
/// A letter of the small texts, at most.
const LETTER: usize = 7;
/// The year 10 000, which a date cannot be written of. A member may claim any time.
const TIME_US_END: u64 = 253_402_300_800_000_000;
/// The smallest picture: its legend has to be readable.
const WIDTH_MIN: usize = 760;

const STYLE: &str = "\
text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif;fill:#1f2328}\
.title{font-size:19px;font-weight:600}\
.note{font-size:12px;fill:#636c76}\
.name{font-size:12px;font-weight:600;text-anchor:middle}\
.below{font-size:11px;fill:#636c76;text-anchor:middle}\
.round{font-size:15px;font-weight:600}\
.aside{font-size:11px;fill:#636c76}\
.bad{fill:#d1242f}\
.even{fill:#f6f8fa}.odd{fill:#eceff3}\
.open.even{fill:#f1f8ff}.open.odd{fill:#e2effd}\
.column{stroke:#d0d7de;stroke-width:1}\
.others{fill:none;stroke:#8c959f;stroke-width:1}\
.selves{fill:none;stroke:#424a53;stroke-width:2}\
.forks{fill:none;stroke:#d1242f;stroke-width:2}\
.before{fill:none;stroke:#424a53;stroke-width:2;stroke-dasharray:2 4}\
circle{stroke-width:2.5}\
.plain{fill:#6e7781;stroke:#6e7781}\
.judge{fill:#f0a202;stroke:#b87700}\
.famous{fill:#2da44e;stroke:#1a7f37}\
.not_famous{fill:#a475f9;stroke:#7a3fe0}\
.undecided{fill:#54aeff;stroke:#0969da}\
.hollow{fill:#fff}\
.ring{fill:none;stroke:#d1242f;stroke-width:2.5}\
.dot{stroke:none;fill:#fff}.hollow+.dot{fill:#1f2328}\
.lit{display:none}\
.event:hover .lit{display:inline;fill:none;stroke:#1f2328;stroke-width:2}\
.event:hover circle{stroke:#1f2328}";

/// Draws a view; without an event, a picture that says so.
pub(in super::super) fn draw(view: &GraphView) -> String {
    if view.events.is_empty() {
        return draw_empty(view);
    }
    let layout = lay_out(view);
    let width = layout.width.max(WIDTH_MIN);
    let legend = legend(width);
    let names = TITLE_HEIGHT + legend.lines * LEGEND_LINE;
    let top = names + NAMES_HEIGHT;
    let mut out = head(width, top + layout.height + FOOT, &title(view, &layout));
    text(&mut out, "title", (MARGIN, 34), &title(view, &layout));
    text(&mut out, "note", (MARGIN, 55), &note(view));
    out.push_str(&legend.drawn);
    let first_us = layout.bands.iter().map(|band| band.time_us).min().unwrap_or(0);
    for band in &layout.bands {
        draw_band(&mut out, band, (width, top), view.pending_round, first_us);
    }
    let has_weights = view.members.iter().any(|member| member.weight != view.members[0].weight);
    for column in &layout.columns {
        draw_column(&mut out, column, view, has_weights, (names, top, top + layout.height));
    }
    draw_lines(&mut out, &layout, top);
    for (number, placed) in layout.events.iter().enumerate() {
        draw_event(&mut out, number, placed, &layout.columns, top);
    }
    out.push_str("</svg>\n");
    out
}

fn draw_empty(view: &GraphView) -> String {
    let title = format!("Hashgraph, epoch {}", view.epoch);
    let why = if view.members.len() == 1 {
        "A network of one has no graph: it orders what comes, and nobody has to agree."
    } else {
        "No events yet. Members make events when there is something to order."
    };
    let mut out = head(WIDTH_MIN, 150, &title);
    text(&mut out, "title", (MARGIN, 34), &title);
    text(&mut out, "note", (MARGIN, 55), &note(view));
    text(&mut out, "empty", (MARGIN, 106), why);
    out.push_str("</svg>\n");
    out
}

fn head(width: usize, height: usize, title: &str) -> String {
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{}\">\n\
         <style>{STYLE}</style>\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n",
        escape(title),
    )
}

fn title(view: &GraphView, layout: &Layout<'_>) -> String {
    let round = |band: Option<&Band>| band.map_or(0, |band| band.round);
    let (first, last) = (round(layout.bands.last()), round(layout.bands.first()));
    if first == last {
        format!("Hashgraph, epoch {}, round {first}", view.epoch)
    } else {
        format!("Hashgraph, epoch {}, rounds {first} to {last}", view.epoch)
    }
}

fn note(view: &GraphView) -> String {
    let here = view.members.iter().find(|member| member.cell == view.cell);
    let here = here.and_then(|member| member.name.clone()).unwrap_or_else(|| view.cell.short());
    let open = view.events.iter().filter(|event| event.received.is_none()).count();
    let members = count(view.members.len(), "member");
    if view.events.is_empty() {
        return format!("As {here} sees it: {members}");
    }
    let (events, pending) = (count(view.events.len(), "event"), view.pending_round);
    format!(
        "As {here} sees it: {members}, {events}, {open} of them not received; \
         round {pending} is the first that is not decided",
    )
}

fn count(number: usize, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

/// What colours and shapes mean.
struct Legend {
    drawn: String,
    lines: usize,
}

fn legend(width: usize) -> Legend {
    let witness = |fame: &str| format!("<circle class=\"{fame}\" r=\"{}\"/>", RADIUS.0 - 2);
    let plain = |class: &str, more: &str| {
        let radius = RADIUS.1;
        format!("<circle class=\"plain{class}\" r=\"{radius}\"/>{more}")
    };
    let ring = format!("<circle class=\"ring\" r=\"{}\"/>", RADIUS.1 + 4);
    let signs = [
        (witness("judge"), "judge"),
        (witness("famous"), "famous"),
        (witness("not_famous"), "not famous"),
        (witness("undecided"), "undecided"),
        (plain("", ""), "no witness"),
        (plain(" hollow", ""), "not received"),
        (plain("", "<circle class=\"dot\" r=\"2\"/>"), "transactions"),
        (plain("", &ring), "fork"),
    ];
    let (mut drawn, mut lines, mut x) = (String::new(), 1, MARGIN);
    for (sign, word) in signs {
        let wide = 40 + word.len() * LETTER;
        if x + wide > width {
            (x, lines) = (MARGIN, lines + 1);
        }
        let y = TITLE_HEIGHT + (lines - 1) * LEGEND_LINE + LEGEND_LINE / 2;
        put(&mut drawn, format_args!("<g transform=\"translate({} {y})\">{sign}</g>", x + 10));
        text(&mut drawn, "note", (x + 26, y + 4), word);
        x += wide;
    }
    Legend { drawn, lines }
}

fn draw_band(out: &mut String, band: &Band, (width, top): (usize, usize), pending: u64, first_us: u64) {
    let is_open = band.round >= pending;
    let class = format!(
        "{}{}",
        if is_open { "open " } else { "" },
        if band.round.is_multiple_of(2) { "even" } else { "odd" }
    );
    let (y, height) = (top + band.y, band.height);
    put(out, format_args!("<rect class=\"{class}\" y=\"{y}\" width=\"{width}\" height=\"{height}\"/>"));
    let middle = y + height / 2;
    let aside = if is_open { "not decided".to_owned() } else { count(band.judges, "judge") };
    text(out, "round", (MARGIN, middle - 10), &format!("round {}", band.round));
    text(out, "aside", (MARGIN, middle + 6), &aside);
    let since_ms = band.time_us.saturating_sub(first_us) / 1_000;
    text(out, "aside", (MARGIN, middle + 21), &format!("+{}.{:03} s", since_ms / 1_000, since_ms % 1_000));
}

fn draw_column(
    out: &mut String,
    column: &Column<'_>,
    view: &GraphView,
    has_weights: bool,
    (names, top, bottom): (usize, usize, usize),
) {
    let (member, x) = (column.member, column.x);
    put(out, format_args!("<path class=\"column\" d=\"M{x} {top}V{bottom}\"/>"));
    let title = match &member.name {
        Some(name) => format!("{name}\n{}\nweight {}", member.cell, member.weight),
        None => format!("{}\nweight {}", member.cell, member.weight),
    };
    put(out, format_args!("<g><title>{}</title>", escape(&title)));
    let name = member.name.clone().unwrap_or_else(|| format!("…{}", member.cell.short()));
    let class = if member.forked { "name bad" } else { "name" };
    let name = shorten(&name, column.width / (LETTER + 1));
    text(out, class, (x, names + 24), &name);
    let mut about = Vec::new();
    if member.cell == view.cell {
        about.push("this cell".to_owned());
    }
    if member.forked {
        about.push("forked".to_owned());
    }
    if !member.connected {
        about.push("away".to_owned());
    }
    if has_weights {
        about.push(format!("weight {}", member.weight));
    }
    let class_below = if member.forked { "below bad" } else { "below" };
    text(out, class_below, (x, names + 40), &shorten(&about.join(", "), column.width / (LETTER - 1)));
    text(out, class, (x, bottom + 22), &name);
    out.push_str("</g>\n");
}

/// The lines to parents, below all events.
fn draw_lines(out: &mut String, layout: &Layout<'_>, top: usize) {
    let (mut selves, mut forks, mut before) = (String::new(), String::new(), String::new());
    let lines: usize = layout.events.iter().map(|placed| placed.other_parents.len()).sum();
    let strength = (60 * LINES_STRONG * layout.events.len() / lines.max(1)).clamp(15, 60);
    put(out, format_args!("<g class=\"others\" stroke-opacity=\".{strength}\">"));
    for (number, placed) in layout.events.iter().enumerate() {
        let (x, y) = (placed.x, top + placed.y);
        let line = |to: &Placed<'_>| format!("M{x} {y}L{} {}", to.x, top + to.y);
        let others: String =
            placed.other_parents.iter().map(|parent| line(&layout.events[*parent])).collect();
        if !others.is_empty() {
            put(out, format_args!("<path id=\"p{number}\" d=\"{others}\"/>"));
        }
        let own = if placed.is_fork { &mut forks } else { &mut selves };
        match (placed.self_parent, placed.event.self_parent) {
            (Some(parent), _) => own.push_str(&line(&layout.events[parent])),
            (None, Some(_)) => before.push_str(&format!("M{x} {y}V{}", top + layout.height)),
            (None, None) => {}
        }
    }
    out.push_str("</g>\n");
    for (class, lines) in [("selves", selves), ("before", before), ("forks", forks)] {
        if !lines.is_empty() {
            put(out, format_args!("<path class=\"{class}\" d=\"{lines}\"/>"));
        }
    }
}

fn draw_event(out: &mut String, number: usize, placed: &Placed<'_>, columns: &[Column<'_>], top: usize) {
    let event = placed.event;
    let (x, y) = (placed.x, top + placed.y);
    let creator = columns.iter().find(|column| column.member.cell == event.creator);
    let creator = creator.and_then(|column| column.member.name.clone());
    let creator = creator.unwrap_or_else(|| event.creator.short());
    let title = escape(&describe(event, &creator, placed.is_fork));
    let _ = write!(out, "<g class=\"event\"><title>{title}</title>");
    if !placed.other_parents.is_empty() {
        let _ = write!(out, "<use class=\"lit\" href=\"#p{number}\"/>");
    }
    let radius = if event.witness { RADIUS.0 } else { RADIUS.1 };
    if placed.is_fork {
        let _ = write!(out, "<circle class=\"ring\" cx=\"{x}\" cy=\"{y}\" r=\"{}\"/>", radius + 4);
    }
    let hollow = if event.received.is_none() { " hollow" } else { "" };
    let class = class(event);
    let _ = write!(out, "<circle class=\"{class}{hollow}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>");
    if event.transactions == Some(true) {
        let _ = write!(out, "<circle class=\"dot\" cx=\"{x}\" cy=\"{y}\" r=\"{}\"/>", radius / 3);
    }
    out.push_str("</g>\n");
}

fn class(event: &GraphEvent) -> &'static str {
    match (event.witness, event.judge, event.fame) {
        (true, true, _) => "judge",
        (true, false, Some(Fame::Famous)) => "famous",
        (true, false, Some(Fame::NotFamous)) => "not_famous",
        (true, false, Some(Fame::Undecided) | None) => "undecided",
        (false, ..) => "plain",
    }
}

/// An event in words, for who points at it.
fn describe(event: &GraphEvent, creator: &str, is_fork: bool) -> String {
    let mut what = format!("round {}", event.round);
    if event.witness {
        what.push_str(match event.fame {
            Some(Fame::Famous) => ", a famous witness",
            Some(Fame::NotFamous) => ", a witness that is not famous",
            Some(Fame::Undecided) | None => ", a witness, its fame undecided",
        });
    }
    if event.judge {
        what.push_str(", a judge");
    }
    let received =
        event.received.map_or("not received".to_owned(), |round| format!("received in round {round}"));
    let at = if event.time_us < TIME_US_END {
        humantime::format_rfc3339_micros(UNIX_EPOCH + Duration::from_micros(event.time_us)).to_string()
    } else {
        format!("at {} us", event.time_us)
    };
    let carries = match (event.bytes, event.transactions) {
        (Some(0), _) => "empty".to_owned(),
        (Some(bytes), Some(true)) => format!("{bytes} bytes, transactions among them"),
        (Some(bytes), _) => format!("{bytes} bytes"),
        (None, _) => "what it carries is in the journal".to_owned(),
    };
    let parents = count(event.other_parents.len(), "other-parent");
    let fork = if is_fork { "\none of several on one self-parent: a fork" } else { "" };
    format!("{}\nby {creator}, {at}\n{what}, {received}\n{parents}; {carries}{fork}", event.id)
}

fn text(out: &mut String, class: &str, (x, y): (usize, usize), words: &str) {
    if !words.is_empty() {
        put(out, format_args!("<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>", escape(words)));
    }
}

/// A line of the file. Writing into a text cannot fail.
fn put(out: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(line);
    out.push('\n');
}

fn shorten(words: &str, letters_max: usize) -> String {
    if words.chars().count() <= letters_max {
        return words.to_owned();
    }
    words.chars().take(letters_max.saturating_sub(1)).chain(['…']).collect()
}

/// A text as XML takes it, in an attribute too.
fn escape(words: &str) -> String {
    let mut out = String::with_capacity(words.len());
    for letter in words.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            '\n' | '\t' => out.push(letter),
            // XML knows no way to write these.
            letter if letter.is_control() || matches!(letter, '\u{fffe}' | '\u{ffff}') => {
                out.push('\u{fffd}');
            }
            letter => out.push(letter),
        }
    }
    out
}
