//! Whole lines on their way to several takers, whose memory is used again when the last one has let go.

use std::sync::{Arc, Mutex, PoisonError};

use crate::config::limits;

/// Emptied blocks, to be filled again.
#[derive(Default)]
pub(crate) struct Spare(Mutex<Vec<Vec<u8>>>);

impl Spare {
    /// One of them, or a new one.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default()
    }

    fn give_back(&self, mut bytes: Vec<u8>) {
        if bytes.capacity() > limits::LOG_BLOCK / 4 {
            bytes.clear();
            let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if spare.len() < limits::LOG_QUEUE {
                spare.push(bytes);
            }
        }
    }
}

/// Whole lines, each with its end.
pub(crate) struct Block {
    bytes: Vec<u8>,
    home: Arc<Spare>,
}

impl Block {
    /// Whose memory goes back there at its end.
    pub(crate) fn new(bytes: Vec<u8>, home: &Arc<Spare>) -> Self {
        Self { bytes, home: home.clone() }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.home.give_back(std::mem::take(&mut self.bytes));
    }
}
