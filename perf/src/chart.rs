//! Charts as SVG, written by hand: lines over a logarithmic axis of numbers, or bars over names.
//! Each point shows the median, and its spread as a thin line from least to greatest.

use std::fmt::Write as _;

use crate::figure::{Figure, Place, Spread, number};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 250.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 60.0;

/// Told apart by people who see colours differently, too.
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999933"];

struct Dot<'a> {
    series: &'a str,
    place: &'a Place,
    spread: Spread,
}

/// The titles of the charts that these figures ask for, in the order of the figures.
pub fn titles(figures: &[Figure]) -> Vec<String> {
    let mut titles: Vec<String> = Vec::new();
    for point in figures.iter().filter_map(|figure| figure.point.as_ref()) {
        if !titles.contains(&point.chart) {
            titles.push(point.chart.clone());
        }
    }
    titles
}

/// The chart of this title as SVG.
pub fn draw(title: &str, figures: &[Figure]) -> String {
    let of_chart = figures.iter().filter_map(|figure| {
        let point = figure.point.as_ref().filter(|point| point.chart == title)?;
        Some((figure, Dot { series: &point.series, place: &point.x, spread: figure.spread }))
    });
    let (chosen, dots): (Vec<&Figure>, Vec<Dot>) = of_chart.unzip();
    let unit = chosen.first().map_or("", |figure| figure.unit.as_str());
    let mut series: Vec<&str> = Vec::new();
    for dot in &dots {
        if !series.contains(&dot.series) {
            series.push(dot.series);
        }
    }
    let top = dots.iter().map(|dot| dot.spread.max).fold(0.0, f64::max);
    let step = step_of(top);
    let ceiling = (top / step).ceil().max(1.0) * step;
    let y = |value: f64| HEIGHT - BOTTOM - value.max(0.0) / ceiling * (HEIGHT - TOP - BOTTOM);

    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
    );
    text(&mut out, LEFT, 22.0, "start", &format!("{title} ({unit})"));
    let mut value = 0.0;
    while value <= ceiling + step / 2.0 {
        line(&mut out, [LEFT, y(value), WIDTH - RIGHT, y(value)], "#dddddd", 1.0);
        text(&mut out, LEFT - 6.0, y(value) + 4.0, "end", &short(value));
        value += step;
    }
    if dots.iter().all(|dot| matches!(dot.place, Place::Number(_))) {
        lines(&mut out, &dots, &series, &y);
    } else {
        bars(&mut out, &dots, &series, &y);
    }
    for (index, name) in series.iter().enumerate() {
        let at = TOP + 18.0 * index as f64;
        let _ = writeln!(
            out,
            "<rect x=\"{}\" y=\"{at}\" width=\"12\" height=\"12\" fill=\"{}\"/>",
            WIDTH - RIGHT + 16.0,
            colour(index)
        );
        text(&mut out, WIDTH - RIGHT + 34.0, at + 10.0, "start", name);
    }
    out.push_str("</svg>\n");
    out
}

fn lines(out: &mut String, dots: &[Dot], series: &[&str], y: &dyn Fn(f64) -> f64) {
    let number_of = |dot: &Dot| match dot.place {
        Place::Number(number) => number.max(f64::MIN_POSITIVE),
        Place::Name(_) => 1.0,
    };
    let (low, high) = dots
        .iter()
        .map(|dot| number_of(dot).log10())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
    let span = (high - low).max(0.1);
    let x = |at: f64| LEFT + 25.0 + (at.log10() - low) / span * (WIDTH - LEFT - RIGHT - 50.0);
    let mut places: Vec<f64> = dots.iter().map(number_of).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    for place in places {
        line(out, [x(place), y(0.0), x(place), y(0.0) + 5.0], "#333333", 1.0);
        text(out, x(place), y(0.0) + 20.0, "middle", &short(place));
    }
    for (index, name) in series.iter().enumerate() {
        let mut of: Vec<&Dot> = dots.iter().filter(|dot| dot.series == *name).collect();
        of.sort_by(|a, b| number_of(a).total_cmp(&number_of(b)));
        for pair in of.windows(2) {
            let ends = [
                x(number_of(pair[0])),
                y(pair[0].spread.median),
                x(number_of(pair[1])),
                y(pair[1].spread.median),
            ];
            line(out, ends, colour(index), 2.0);
        }
        for dot in of {
            let (at, spread) = (x(number_of(dot)), dot.spread);
            line(out, [at, y(spread.min), at, y(spread.max)], colour(index), 1.0);
            let _ = writeln!(
                out,
                "<circle cx=\"{at:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{}\"><title>{}: {}</title></circle>",
                y(spread.median),
                colour(index),
                escape(name),
                number(spread.median)
            );
        }
    }
}

fn bars(out: &mut String, dots: &[Dot], series: &[&str], y: &dyn Fn(f64) -> f64) {
    let name_of = |dot: &Dot| match dot.place {
        Place::Number(number) => short(*number),
        Place::Name(name) => name.clone(),
    };
    let mut places: Vec<String> = Vec::new();
    for name in dots.iter().map(name_of) {
        if !places.contains(&name) {
            places.push(name);
        }
    }
    let room = (WIDTH - LEFT - RIGHT) / places.len().max(1) as f64;
    let width = room * 0.8 / series.len().max(1) as f64;
    for (place, name) in places.iter().enumerate() {
        let begin = LEFT + room * (place as f64 + 0.1);
        text(out, begin + room * 0.4, y(0.0) + 20.0, "middle", name);
        for dot in dots.iter().filter(|dot| name_of(dot) == *name) {
            let index = series.iter().position(|series| *series == dot.series).unwrap_or(0);
            let (at, spread) = (begin + width * index as f64, dot.spread);
            let _ = writeln!(
                out,
                "<rect x=\"{at:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\">\
                 <title>{}: {}</title></rect>",
                y(spread.median),
                width * 0.92,
                y(0.0) - y(spread.median),
                colour(index),
                escape(dot.series),
                number(spread.median)
            );
            let middle = at + width * 0.46;
            line(out, [middle, y(spread.min), middle, y(spread.max)], "#333333", 1.0);
            if width > 24.0 {
                text(out, middle, y(spread.max) - 4.0, "middle", &number(spread.median));
            }
        }
    }
}

fn colour(index: usize) -> &'static str {
    COLOURS[index % COLOURS.len()]
}

/// A round step that divides an axis up to `top` into four to ten parts.
fn step_of(top: f64) -> f64 {
    let top = if top > 0.0 { top } else { 1.0 };
    let decade = 10f64.powf((top / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0].map(|times| times * decade);
    steps.into_iter().rfind(|step| top / step >= 4.0).unwrap_or(decade)
}

/// 0.5, 20, 1 k, 2.5 k, 10 M.
fn short(value: f64) -> String {
    let plain = |value: f64| {
        let digits = format!("{value:.2}");
        digits.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match value {
        value if value >= 1e6 => plain(value / 1e6) + " M",
        value if value >= 1e3 => plain(value / 1e3) + " k",
        value => plain(value),
    }
}

fn line(out: &mut String, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
    let _ = writeln!(
        out,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" \
         stroke-width=\"{width}\"/>"
    );
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(series: &str, x: Place, value: f64) -> Figure {
        Figure::of("c", "m", "cycles", &[value; 5]).at("Cost & flows", series, x)
    }

    #[test]
    fn numbers_make_lines_and_names_make_bars() {
        let lines = [1e3, 1e6].map(|flows| figure("nat", Place::Number(flows), flows / 1e4));
        let svg = draw("Cost & flows", &lines);
        assert!(svg.contains("Cost &amp; flows (cycles)") && svg.contains("<circle") && svg.contains("1 k"));
        let bars = ["64", "1500"].map(|size| figure("nat", Place::Name(size.to_owned()), 3.0));
        assert_eq!(draw("Cost & flows", &bars).matches("<title>").count(), 2);
        assert_eq!(titles(&bars), ["Cost & flows"]);
    }

    #[test]
    fn an_axis_has_a_handful_of_round_steps() {
        for (top, step) in [(1.0, 0.25), (48.0, 10.0), (100.0, 25.0), (2600.0, 500.0), (0.0, 0.25)] {
            assert!((step_of(top) - step).abs() < 1e-9, "{top}: {}", step_of(top));
        }
    }
}
