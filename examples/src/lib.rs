//! Small programs against each crate of ferry6; see the files beside this folder.
