//! Numbers on the command line, with one wording for those out of bounds.

/// Returns a parser of whole numbers from `min` to `max`.
pub(super) fn within<T: TryFrom<u64>>(
    min: u64,
    max: impl Into<u64>,
) -> impl Fn(&str) -> Result<T, String> + Clone + Send + Sync + 'static {
    let max = max.into();
    move |text| {
        let number = text.parse::<u64>().ok();
        let number = number.filter(|number| (min..=max).contains(number));
        let number = number.and_then(|number| T::try_from(number).ok());
        number.ok_or_else(|| format!("expected {min} to {max}"))
    }
}
