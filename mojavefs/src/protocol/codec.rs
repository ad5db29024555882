//! The one place that knows how values become bytes, on the wire and in the store: bincode 2 in its standard
//! configuration (little-endian, variable-length integers).

use crate::limits::DECODED_BYTES_MAX;
use serde::{Deserialize, Serialize};

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The value has no encoding (too long for the limit, or a type the format cannot express).
    #[error("cannot encode: {0}")]
    Encode(#[from] bincode::error::EncodeError),
    /// The bytes are no value of the expected type.
    #[error("cannot decode: {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// A whole value was read and bytes are left.
    #[error("cannot decode: {0} bytes are left over")]
    Trailing(usize),
}

/// The bytes of `value`.
pub fn encode<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, CodecError> {
    Ok(bincode::serde::encode_to_vec(value, bincode::config::standard())?)
}

/// Appends the bytes of `value` to `out`.
pub fn encode_into<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), CodecError> {
    bincode::serde::encode_into_std_write(value, out, bincode::config::standard())?;
    Ok(())
}

/// Writes the bytes of `value` to the start of `out`, without an allocation; returns how many there are.
pub fn encode_to<T: Serialize + ?Sized>(value: &T, out: &mut [u8]) -> Result<usize, CodecError> {
    Ok(bincode::serde::encode_into_slice(value, out, bincode::config::standard())?)
}

/// The value that all of `bytes` encodes; borrows from them where the type does.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    let config = bincode::config::standard().with_limit::<DECODED_BYTES_MAX>();
    let (value, used) = bincode::serde::borrow_decode_from_slice(bytes, config)?;
    match bytes.len() - used {
        0 => Ok(value),
        left => Err(CodecError::Trailing(left)),
    }
}
