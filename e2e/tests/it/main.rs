//! Tests on real guests, one file for each subject.

mod table;
