/// A logarithmic axis, whose ends are powers of ten, their doubles or fivefolds.
#[derive(Debug)]
pub struct Scale {
    low: f64,
    high: f64,
    start: f64,
    end: f64,
}

const STEPS: [f64; 3] = [1.0, 2.0, 5.0];

impl Scale {
    /// Holds all of `values`; none without any.
    pub fn over(values: impl Iterator<Item = f64> + Clone, (start, end): (f64, f64)) -> Option<Self> {
        let low = values.clone().min_by(f64::total_cmp)?;
        let high = values.max_by(f64::total_cmp)?;
        let below = steps().filter(|step| *step <= low).last()?;
        let above = steps().find(|step| *step >= high && *step > below)?;
        Some(Self { low: below.log10(), high: above.log10(), start, end })
    }

    pub fn at(&self, value: f64) -> f64 {
        self.start + (value.log10() - self.low) / (self.high - self.low) * (self.end - self.start)
    }

    /// Where the axis has lines, and what they say.
    pub fn ticks(&self) -> Vec<(f64, String)> {
        let within = |value: &f64| (self.low - 1e-9..=self.high + 1e-9).contains(&value.log10());
        // The steps between powers of ten only where there are few of these.
        let all = self.high - self.low < 2.5;
        let shown =
            steps().filter(|value| within(value) && (all || (value.log10() - value.log10().round()).abs() < 1e-9));
        shown.map(|value| (value, label(value))).collect()
    }
}

fn steps() -> impl Iterator<Item = f64> {
    (-9..12).flat_map(|power| STEPS.map(|step| step * 10f64.powi(power)))
}

fn label(value: f64) -> String {
    if value < 1.0 {
        return format!("{value:.9}").trim_end_matches('0').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut label = String::new();
    for (nth, digit) in digits.chars().enumerate() {
        if nth > 0 && (digits.len() - nth) % 3 == 0 {
            label.push(',');
        }
        label.push(digit);
    }
    label
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_holds_all_values_and_says_where_they_are() {
        let scale = Scale::over([3.0, 1_500.0].into_iter(), (0.0, 100.0)).expect("values");
        assert_eq!((scale.at(2.0), scale.at(2_000.0)), (0.0, 100.0));
        let labels: Vec<_> = scale.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["10", "100", "1,000"]);
    }

    #[test]
    fn without_values_there_is_no_axis() {
        assert!(Scale::over(std::iter::empty(), (0.0, 100.0)).is_none());
    }

    #[test]
    fn small_numbers_are_written_out() {
        assert_eq!([0.001, 0.5, 1.0, 200_000.0].map(label), ["0.001", "0.5", "1", "200,000"]);
    }
}
