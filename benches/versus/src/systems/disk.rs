//! The disk by itself: what is appended to a file is synced.

use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use crate::endpoint::{Gate, Result, Spec};
use crate::load::{Called, Parcel, call};

pub(super) async fn commit(spec: &Spec, gate: &Gate) -> Result<Called> {
    let file = Arc::new(File::create(spec.scratch.join("synced"))?);
    gate.pass()?;
    let once = move |parcel: Parcel| {
        let file = Arc::clone(&file);
        async move {
            // Nothing else is done meanwhile.
            let mut file = file.as_ref();
            file.write_all(&parcel.encode()).and_then(|()| file.sync_data()).ok().map(|()| parcel)
        }
    };
    Ok(call(spec.load, spec.in_flight, once).await)
}
