//! What `/metrics` says.

/// One scrape.
#[derive(Debug)]
pub(crate) struct Metrics {
    /// The text as scraped.
    pub(crate) text: String,
}

impl Metrics {
    /// The value of a series; 0 where it is not there. Labels in any order: `app="shop",status="200"`.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).unwrap_or(0.0)
    }

    /// The value of a series.
    pub(crate) fn find(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let matches = |line: &&str| {
            let series = line.split([' ', '{']).next();
            let label = |(key, value): &(&str, &str)| line.contains(&format!("{key}=\"{value}\""));
            series == Some(name) && labels.iter().all(label)
        };
        let line = self.text.lines().find(matches)?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// How many series have this name.
    pub(crate) fn series(&self, name: &str) -> usize {
        self.text.lines().filter(|line| line.split([' ', '{']).next() == Some(name)).count()
    }
}
