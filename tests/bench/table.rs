//! A table in Markdown.

/// Lines of one part.
pub(crate) struct Table {
    title: &'static str,
    lines: Vec<[String; 5]>,
}

impl Table {
    pub(crate) fn new(title: &'static str) -> Self {
        Self { title, lines: Vec::new() }
    }

    /// Adds a line: what, measured, what it stands beside, their ratio, the floor.
    pub(crate) fn line(&mut self, what: &str, measured: String, beside: String, ratio: String, floor: &str) {
        eprintln!("{what}: {measured} ({beside})");
        self.lines.push([what.to_owned(), measured, beside, ratio, floor.to_owned()]);
    }

    /// What stands beside nothing.
    pub(crate) fn alone(&mut self, what: &str, measured: String) {
        eprintln!("{what}: {measured}");
        self.lines.push([what.to_owned(), measured, String::new(), String::new(), String::new()]);
    }

    #[allow(clippy::print_stdout)]
    pub(crate) fn print(&self) {
        println!("### {}\n", self.title);
        println!("| what | measured | beside it, same run | ratio | floor |\n|---|---|---|---|---|");
        for [what, measured, beside, ratio, floor] in &self.lines {
            println!("| {what} | {measured} | {beside} | {ratio} | {floor} |");
        }
        println!();
    }
}

/// A rate for people.
pub(crate) fn per_second(rate: f64) -> String {
    match rate {
        rate if rate >= 1e6 => format!("{:.2} M/s", rate / 1e6),
        rate if rate >= 1e4 => format!("{:.1} k/s", rate / 1e3),
        rate => format!("{rate:.0}/s"),
    }
}

/// A duration for people.
pub(crate) fn time(duration: std::time::Duration) -> String {
    let us = duration.as_secs_f64() * 1e6;
    if us >= 1e4 {
        format!("{:.0} ms", us / 1e3)
    } else if us >= 1e3 {
        format!("{:.2} ms", us / 1e3)
    } else {
        format!("{us:.1} µs")
    }
}
