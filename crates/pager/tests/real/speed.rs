pub(crate) const ALL: &[super::Test] = &[];
