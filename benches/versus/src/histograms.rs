//! Latencies kept in files, one a subject and case: the percentile distributions that HdrHistogram writes, in µs, which its
//! own tools draw, with a line for each value that occurred, so that nothing is lost between here and a file.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;

use crate::Result;

const LATENCY_MAX_NS: u64 = 60_000_000_000;

/// Of nanoseconds, with three digits.
pub(crate) fn new() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX_NS, 3)?)
}

/// Values that occurred, and how often.
pub(crate) type Counts = Vec<(u64, u64)>;

pub(crate) fn counts(histogram: &Histogram<u64>) -> Counts {
    let recorded = histogram.iter_recorded();
    recorded.map(|step| (step.value_iterated_to(), step.count_since_last_iteration())).collect()
}

/// All of them in one.
pub(crate) fn sum<'a>(counts: impl IntoIterator<Item = &'a Counts>) -> Result<Histogram<u64>> {
    let mut sum = new()?;
    for &(nanos, count) in counts.into_iter().flatten() {
        sum.record_n(nanos, count)?;
    }
    Ok(sum)
}

fn path(folder: &Path, case: &str, subject: &str) -> PathBuf {
    folder.join(format!("{case}.{subject}.hgrm"))
}

pub(crate) fn write(
    folder: &Path,
    case: &str,
    subject: &str,
    histogram: &Histogram<u64>,
) -> Result<()> {
    let mut text = format!(
        "{:>15} {:>14} {:>12} {:>16}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let (mut passed, all) = (0, histogram.len());
    for (nanos, count) in counts(histogram) {
        passed += count;
        let (micros, share) = (nanos as f64 / 1000.0, passed as f64 / all as f64);
        let _ = write!(text, "{micros:>15.3} {share:>14.12} {passed:>12}");
        let _ = match passed == all {
            false => writeln!(text, " {:>16.2}", 1.0 / (1.0 - share)),
            true => writeln!(text),
        };
    }
    let deviation = histogram.stdev() / 1000.0;
    let _ = writeln!(
        text,
        "#[Mean    = {:>12.3}, StdDeviation   = {deviation:>12.3}]",
        histogram.mean() / 1000.0
    );
    let _ = writeln!(
        text,
        "#[Max     = {:>12.3}, Total count    = {all:>12}]",
        histogram.max() as f64 / 1000.0
    );
    fs::create_dir_all(folder)?;
    Ok(fs::write(path(folder, case, subject), text)?)
}

/// What was written, if there is any.
pub(crate) fn read(folder: &Path, case: &str, subject: &str) -> Result<Option<Histogram<u64>>> {
    let path = path(folder, case, subject);
    if !path.exists() {
        return Ok(None);
    }
    let text = fs::read_to_string(&path)?;
    let mut passed = 0;
    let mut counts = Counts::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (nanos, until) =
            step(line).ok_or_else(|| format!("{}: not a distribution: {line}", path.display()))?;
        counts.push((nanos, until.saturating_sub(passed)));
        passed = until;
    }
    sum([&counts]).map(Some)
}

fn step(line: &str) -> Option<(u64, u64)> {
    let mut fields = line.split_whitespace();
    let micros: f64 = fields.next()?.parse().ok()?;
    let passed = fields.nth(1)?.parse().ok()?;
    Some(((micros * 1000.0).round() as u64, passed))
}

/// Pairs of a share of the calls and what that many were no slower than, in µs, from the median's side to the last of them:
/// eight for each halving of what is left.
pub(crate) fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    let steps =
        histogram.iter_quantiles(8).skip_while(|step| step.count_since_last_iteration() == 0);
    let shares =
        steps.map(|step| (step.quantile_iterated_to(), step.value_iterated_to() as f64 / 1000.0));
    // The last is at 100 %, which is nowhere on an axis of nines.
    shares.filter(|(share, _)| *share < 1.0).collect()
}
