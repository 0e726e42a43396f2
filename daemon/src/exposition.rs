//! The two texts in which metrics are asked for: OpenMetrics, and the text format 0.0.4 that came before it. Pure.
//!
//! Who does not ask for OpenMetrics gets 0.0.4. Most parsers know only that one, and refuse a whole page over one word that
//! is not theirs (Go's `expfmt.TextParser`: `unknown metric type "unknown"`).

use std::fmt::Write as _;

/// What Prometheus expects of OpenMetrics text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// The text format before it.
pub const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a metric of OpenMetrics' type "unknown" is in 0.0.4, which lets a counter have any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OlderType {
    Untyped,
    Counter,
    /// The `…_sum` or `…_count` of a summary without quantiles.
    PartOfSummary,
}

/// Whether a request with this `Accept` header gets OpenMetrics: when it names it, and not below plain text.
pub fn wants_openmetrics(accept: &str) -> bool {
    let openmetrics = quality(accept, "application/openmetrics-text");
    openmetrics > 0.0 && openmetrics >= quality(accept, "text/plain")
}

/// Highest `q` that `accept` gives to `media_type` by its name; 0 when it does not name it (RFC 9110, 12.5.1).
fn quality(accept: &str, media_type: &str) -> f32 {
    let of_part = |part: &str| {
        let mut parameters = part.split(';').map(str::trim);
        let named = parameters.next().is_some_and(|name| name.eq_ignore_ascii_case(media_type));
        let q = parameters.find_map(|parameter| parameter.strip_prefix("q=")).map_or(Some(1.0), |q| q.parse().ok());
        named.then_some(q.unwrap_or(0.0))
    };
    accept.split(',').filter_map(of_part).fold(0.0, f32::max)
}

/// `openmetrics` in format 0.0.4: its five types, no units, no end mark, counters by their whole names. `older` says what
/// metrics of unknown type are.
pub fn to_text(openmetrics: &str, older: impl Fn(&str) -> OlderType) -> String {
    let mut text = String::with_capacity(openmetrics.len());
    let mut help = "";
    for line in openmetrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            if let Some((name, kind)) = older_family(name, kind, &older) {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}");
            }
        } else if !line.starts_with('#') {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

/// Name and type of a family in 0.0.4; `None` for one that goes on with the family before it.
fn older_family<'a>(name: &str, kind: &'a str, older: impl Fn(&str) -> OlderType) -> Option<(String, &'a str)> {
    Some(match kind {
        "counter" => (format!("{name}_total"), "counter"),
        "info" => (format!("{name}_info"), "gauge"),
        "gauge" | "histogram" | "summary" => (name.to_owned(), kind),
        _ => match older(name) {
            OlderType::Untyped => (name.to_owned(), "untyped"),
            OlderType::Counter => (name.to_owned(), "counter"),
            OlderType::PartOfSummary => (name.strip_suffix("_sum")?.to_owned(), "summary"),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_is_for_those_who_name_it_and_do_not_prefer_plain_text() {
        let prometheus = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;\
                          q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
        for wants in [prometheus, "application/openmetrics-text", "Application/OpenMetrics-Text; version=1.0.0"] {
            assert!(wants_openmetrics(wants), "{wants}");
        }
        let prefers_text = "text/plain;version=0.0.4;q=0.6,application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1";
        for other in ["", "*/*", "text/plain", "application/openmetrics-text;q=0", prefers_text] {
            assert!(!wants_openmetrics(other), "{other}");
        }
    }

    #[test]
    fn the_older_text_has_only_its_own_types_and_whole_names() {
        let openmetrics = "# HELP adds Pods.\n# TYPE adds counter\nadds_total 1\n\
                           # HELP build Version.\n# TYPE build info\nbuild_info{version=\"1\"} 1\n\
                           # HELP took_seconds Time.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\n\
                           took_seconds_sum 0.5\ntook_seconds_count 1\ntook_seconds_bucket{le=\"+Inf\"} 1\n\
                           # HELP req_count Calls\n# TYPE req_count unknown\nreq_count 3\n\
                           # HELP odd Odd\n# TYPE odd unknown\nodd 4\n\
                           # HELP ms_sum Time\n# TYPE ms_sum unknown\nms_sum{api=\"A\"} 9\n\
                           # HELP ms_count Calls\n# TYPE ms_count unknown\nms_count{api=\"A\"} 2\n# EOF\n";
        let older = |name: &str| match name {
            "req_count" => OlderType::Counter,
            "ms_sum" | "ms_count" => OlderType::PartOfSummary,
            _ => OlderType::Untyped,
        };
        let expected = "# HELP adds_total Pods.\n# TYPE adds_total counter\nadds_total 1\n\
                        # HELP build_info Version.\n# TYPE build_info gauge\nbuild_info{version=\"1\"} 1\n\
                        # HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
                        took_seconds_sum 0.5\ntook_seconds_count 1\ntook_seconds_bucket{le=\"+Inf\"} 1\n\
                        # HELP req_count Calls\n# TYPE req_count counter\nreq_count 3\n\
                        # HELP odd Odd\n# TYPE odd untyped\nodd 4\n\
                        # HELP ms Time\n# TYPE ms summary\nms_sum{api=\"A\"} 9\nms_count{api=\"A\"} 2\n";
        assert_eq!(to_text(openmetrics, older), expected);
    }
}
