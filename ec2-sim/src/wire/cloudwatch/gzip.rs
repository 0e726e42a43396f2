//! Packed request bodies: SDKs send PutMetricData so from 10 kB on.

use std::io::Read as _;

use flate2::read::GzDecoder;

use crate::model::ApiError;
use crate::model::cloudwatch::error;

/// The contents, if they are no longer than `max`.
pub(super) fn unpack(packed: &[u8], max: usize) -> Result<Vec<u8>, ApiError> {
    let mut contents = Vec::new();
    // One byte more than may be, so that a longer body is noticed without unpacking all of it.
    let read = GzDecoder::new(packed).take(max as u64 + 1).read_to_end(&mut contents);
    read.map_err(|_| error::validation("The request body is not in the gzip format."))?;
    if contents.len() > max {
        return Err(error::too_large(max));
    }
    Ok(contents)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn pack(contents: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(contents).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn a_packed_body_is_unpacked_up_to_the_limit() {
        assert_eq!(unpack(&pack(&[7; 100]), 100).unwrap(), [7; 100]);
        assert_eq!(unpack(&pack(&[7; 101]), 100).unwrap_err().code, "RequestEntityTooLarge");
        let bomb = pack(&vec![0; 50 << 20]);
        assert!(bomb.len() < 100_000);
        assert_eq!(unpack(&bomb, 1 << 20).unwrap_err().status, 413);
    }

    #[test]
    fn a_body_that_is_cut_off_or_not_packed_is_refused() {
        let whole = pack(b"some text that is packed");
        assert_eq!(unpack(&whole[..whole.len() - 9], 1000).unwrap_err().code, "ValidationError");
        assert_eq!(unpack(b"plain", 1000).unwrap_err().code, "ValidationError");
    }
}
