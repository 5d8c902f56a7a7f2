//! Taking an appliance out of service, and putting it back: what is asked.

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Maintenance {
    /// Out of service, or back.
    pub on: bool,
    /// Out, though nobody in sync can take over.
    pub force: bool,
}

impl Maintenance {
    /// As the query of [`super::paths::MAINTENANCE`].
    pub fn to_query(self) -> String {
        format!("on={}&force={}", self.on, self.force)
    }

    /// From a query, or a sentence that says what is wrong with it.
    pub fn from_query(query: &str) -> Result<Maintenance, String> {
        let (mut on, mut force) = (None, false);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let truth = || value.parse::<bool>().map_err(|_| format!("{key}={value} is not understood"));
            match key {
                "on" => on = Some(truth()?),
                "force" => force = truth()?,
                _ => return Err(format!("unknown key {key}")),
            }
        }
        let on = on.ok_or("on=true or on=false is missing")?;
        if force && !on {
            return Err("force=true goes with on=true alone".to_owned());
        }
        Ok(Maintenance { on, force })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_survives_its_query_and_a_query_that_is_none_is_refused_with_a_sentence() {
        for (on, force) in [(true, true), (true, false), (false, false)] {
            let wanted = Maintenance { on, force };
            assert_eq!(Maintenance::from_query(&wanted.to_query()), Ok(wanted));
        }
        for (query, why) in [
            ("", "on=true or on=false is missing"),
            ("force=true", "on=true or on=false is missing"),
            ("on=yes", "on=yes is not understood"),
            ("on=false&force=true", "force=true goes with on=true alone"),
            ("on=true&now=true", "unknown key now"),
        ] {
            assert_eq!(Maintenance::from_query(query), Err(why.to_owned()));
        }
    }
}
