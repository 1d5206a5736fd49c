//! `.slugignore`: what of a directory is not deployed (Heroku: Slug Compiler). Lines as in `.gitignore`, without `!`.

/// What a line says.
struct Pattern {
    /// By the parts between slashes.
    parts: Vec<String>,
    /// Whether it is for directories alone.
    dirs: bool,
}

/// What stays behind.
#[derive(Default)]
pub(in crate::cli) struct Ignored(Vec<Pattern>);

impl Ignored {
    /// Reads the text of a file.
    ///
    /// # Errors
    /// The number of a line that begins with `!`: what is taken back there would be missing, or be deployed.
    pub(in crate::cli) fn parse(text: &str) -> Result<Self, usize> {
        let mut patterns = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if line.starts_with('!') {
                return Err(number + 1);
            }
            let dirs = line.ends_with('/');
            let path = line.trim_end_matches('/');
            // One without a slash but at its end is for every directory.
            let anywhere = !path.contains('/');
            let mut parts: Vec<String> =
                path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
            if anywhere {
                parts.insert(0, "**".into());
            }
            if !parts.is_empty() {
                patterns.push(Pattern { parts, dirs });
            }
        }
        Ok(Self(patterns))
    }

    /// Whether a file or directory stays behind, by its path below the root. What is in a directory goes with it.
    pub(in crate::cli) fn has(&self, path: &str, is_dir: bool) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let fits = |pattern: &Pattern| (is_dir || !pattern.dirs) && fits(&pattern.parts, &parts);
        parts.first() == Some(&".git") || self.0.iter().any(fits)
    }
}

fn fits(pattern: &[String], path: &[&str]) -> bool {
    match (pattern.split_first(), path.split_first()) {
        (None, None) => true,
        (Some((first, rest)), _) if first == "**" => {
            fits(rest, path) || path.split_first().is_some_and(|(_, path)| fits(pattern, path))
        }
        (Some((first, rest)), Some((part, path))) => {
            part_fits(first.as_bytes(), part.as_bytes()) && fits(rest, path)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// `*` is any text, `?` any byte.
fn part_fits(pattern: &[u8], part: &[u8]) -> bool {
    // Where the last star is, and to where of the part it reaches so far.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < part.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(byte) if *byte == b'?' || *byte == part[of] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((of_star, reached)) => {
                    star = Some((of_star, reached + 1));
                    (at, of) = (of_star + 1, reached + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_name_what_stays_behind() {
        let text = "# a comment\n\n*.psd\n/doc\nlog/\ntest/fixtures/*.bin\na/**/z\n?.tmp\n";
        let ignored = Ignored::parse(text).unwrap();
        for (path, is_dir, expected) in [
            ("art.psd", false, true),
            ("deep/down/art.psd", false, true),
            ("art.psd.txt", false, false),
            ("doc", true, true),
            ("src/doc", true, false),
            ("log", true, true),
            ("src/log", true, true),
            ("log", false, false),
            ("test/fixtures/1.bin", false, true),
            ("test/fixtures/deep/1.bin", false, false),
            ("a/z", false, true),
            ("a/b/c/z", false, true),
            ("a/b/c/y", false, false),
            ("1.tmp", false, true),
            ("10.tmp", false, false),
            (".git", true, true),
            (".gitignore", false, false),
            ("# a comment", false, false),
        ] {
            assert_eq!(ignored.has(path, is_dir), expected, "{path}");
        }
        assert_eq!(Ignored::parse("a\n!b\n").err(), Some(2));
    }

    #[test]
    fn stars_stand_for_any_text() {
        let check = |pattern: &str, part: &str, expected| {
            assert_eq!(
                part_fits(pattern.as_bytes(), part.as_bytes()),
                expected,
                "{pattern} {part}"
            );
        };
        check("*", "", true);
        check("a*b*c", "axxbxbxc", true);
        check("a*b*c", "axxbxbx", false);
        check("*a", "aaab", false);
        check("", "", true);
        check("", "a", false);
        // It takes no time that grows with a power.
        check(&"*a".repeat(40), &"a".repeat(4000), true);
        check(&("*a".repeat(40) + "b"), &"a".repeat(4000), false);
    }
}
