//! CloudWatch's units: a closed list.

use std::fmt;

use serde::Serialize;

/// All units, in the order in which CloudWatch lists them in its refusals.
const UNITS: [&str; 27] = [
    "Seconds",
    "Microseconds",
    "Milliseconds",
    "Bytes",
    "Kilobytes",
    "Megabytes",
    "Gigabytes",
    "Terabytes",
    "Bits",
    "Kilobits",
    "Megabits",
    "Gigabits",
    "Terabits",
    "Percent",
    "Count",
    "Bytes/Second",
    "Kilobytes/Second",
    "Megabytes/Second",
    "Gigabytes/Second",
    "Terabytes/Second",
    "Bits/Second",
    "Kilobits/Second",
    "Megabits/Second",
    "Gigabits/Second",
    "Terabits/Second",
    "Count/Second",
    "None",
];

/// One of CloudWatch's units ([MetricDatum](https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_MetricDatum.html)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Unit(&'static str);

impl Unit {
    /// The unit of a datum that names none.
    pub const NONE: Self = Self("None");

    pub fn parse(name: &str) -> Option<Self> {
        UNITS.into_iter().find(|unit| *unit == name).map(Self)
    }

    /// All names, as CloudWatch lists them.
    pub(super) fn all() -> String {
        UNITS.join(", ")
    }

    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}
