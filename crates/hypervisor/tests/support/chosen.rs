//! What the arguments of the standard test harness ask for.

/// Parts of names, or whole ones.
pub(crate) struct Chosen {
    filters: Vec<String>,
    exact: bool,
}

impl Chosen {
    pub(crate) fn of(arguments: &[String]) -> Self {
        let filters = arguments
            .iter()
            .filter(|argument| !argument.starts_with('-'))
            .cloned()
            .collect();
        Self {
            filters,
            exact: arguments.iter().any(|argument| argument == "--exact"),
        }
    }

    /// Whether a test is asked for: all are if none is named.
    pub(crate) fn takes(&self, name: &str) -> bool {
        self.filters.is_empty() || self.names(name)
    }

    /// Whether it is asked for by its name.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.filters.iter().any(|filter| {
            if self.exact {
                name == filter
            } else {
                name.contains(filter.as_str())
            }
        })
    }
}
