//! The command line: `--name value` pairs, and the rest in order.

use std::collections::BTreeMap;
use std::str::FromStr;

/// A parsed command line.
pub struct Options {
    named: BTreeMap<String, String>,
    /// What stands alone.
    pub rest: Vec<String>,
}

impl Options {
    /// The command line of this process.
    pub fn parse() -> Result<Self, String> {
        Self::from_words(std::env::args().skip(1))
    }

    fn from_words(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { named: BTreeMap::new(), rest: Vec::new() };
        while let Some(word) = words.next() {
            match word.strip_prefix("--") {
                Some(name) => {
                    let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
                    options.named.insert(name.to_owned(), value);
                }
                None => options.rest.push(word),
            }
        }
        Ok(options)
    }

    /// The value of `--name`, or `default` where it is not given.
    pub fn get<T: FromStr>(&self, name: &str, default: T) -> Result<T, String> {
        if self.named.contains_key(name) { self.require(name) } else { Ok(default) }
    }

    /// As [`get`](Self::get), where the option must be given.
    pub fn require<T: FromStr>(&self, name: &str) -> Result<T, String> {
        let value = self.named.get(name).ok_or_else(|| format!("--{name} is missing"))?;
        value.parse().map_err(|_| format!("--{name}: {value:?} makes no sense"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_take_values_and_the_rest_keeps_its_order() {
        let words = ["a", "--rate", "5", "b"].map(str::to_owned);
        let options = Options::from_words(words.into_iter()).unwrap();
        assert_eq!(options.rest, ["a", "b"]);
        assert_eq!(options.require::<u32>("rate"), Ok(5));
        assert_eq!(options.get("connections", 7), Ok(7));
        assert!(options.require::<bool>("rate").is_err());
        assert!(options.require::<u32>("connections").is_err());
    }
}
