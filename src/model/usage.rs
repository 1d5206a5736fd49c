//! How long dynos ran, and what is paid for it.

use std::collections::BTreeMap;

use crate::model::{AppName, Month, ProcessType, SizeName};

/// Who pays for a dyno's time: the smallest unit that usage is told of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Payer {
    /// The app.
    pub app: AppName,
    /// `run` and `scheduler` for one-off dynos.
    pub process_type: ProcessType,
    /// The dyno's size.
    pub size: SizeName,
}

/// Milliseconds in which dynos ran, by month (UTC) and payer. Two that ran at one time count twice.
pub type Usage = BTreeMap<(Month, Payer), u64>;
