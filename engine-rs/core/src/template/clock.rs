//! `strftime_now` of chat templates: the date that many system prompts state. The time is UTC, so that a prompt does not
//! depend on where the server stands.

use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Error, ErrorKind};

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment in the calendar. Months and days of the month count from 1, days of the week from Sunday, 0.
struct Moment {
    year: i64,
    month: usize,
    day: u64,
    weekday: usize,
    yearday: i64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Moment {
    fn of(time: SystemTime) -> Self {
        let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let days = (seconds / 86_400) as i64;
        let (year, month, day) = civil(days);
        Moment {
            year,
            month,
            day,
            weekday: (days + 4).rem_euclid(7) as usize,
            yearday: days - days_before(year) + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }
}

/// Days from 1970-01-01 to the first day of `year`, from 1970 on.
fn days_before(year: i64) -> i64 {
    let before = year - 1;
    let leap_days = |year: i64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap_days(before) - leap_days(1969)
}

fn civil(days: i64) -> (i64, usize, u64) {
    let mut year = 1970 + days / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let leap = i64::from((year % 4 == 0 && year % 100 != 0) || year % 400 == 0);
    let mut day = days - days_before(year);
    let lengths = [31, 28 + leap, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day as u64 + 1)
}

/// `time` as Python's `strftime` writes it, in the C locale. Errors: a directive that is not supported.
pub fn format(time: SystemTime, format: &str) -> Result<String, Error> {
    let moment = Moment::of(time);
    let mut out = String::with_capacity(format.len() * 2);
    let mut rest = format.chars();
    while let Some(character) = rest.next() {
        if character != '%' {
            out.push(character);
            continue;
        }
        let directive = rest.next();
        let (padded, directive) = match directive {
            Some('-') => (false, rest.next()),
            _ => (true, directive),
        };
        let start = out.len();
        write_directive(&mut out, &moment, directive)?;
        if !padded {
            let trimmed = out[start..].trim_start_matches(['0', ' ']);
            let kept = if trimmed.is_empty() { "0".to_owned() } else { trimmed.to_owned() };
            out.replace_range(start.., &kept);
        }
    }
    Ok(out)
}

fn write_directive(out: &mut String, moment: &Moment, directive: Option<char>) -> Result<(), Error> {
    let Moment { year, month, day, hour, minute, second, .. } = moment;
    let (month_name, day_name) = (MONTHS[month - 1], DAYS[moment.weekday]);
    let hour12 = (hour + 11) % 12 + 1;
    let written = match directive {
        Some('Y') => write!(out, "{year}"),
        Some('y') => write!(out, "{:02}", year % 100),
        Some('m') => write!(out, "{month:02}"),
        Some('d') => write!(out, "{day:02}"),
        Some('e') => write!(out, "{day:2}"),
        Some('j') => write!(out, "{:03}", moment.yearday),
        Some('B') => write!(out, "{month_name}"),
        Some('b' | 'h') => write!(out, "{}", &month_name[..3]),
        Some('A') => write!(out, "{day_name}"),
        Some('a') => write!(out, "{}", &day_name[..3]),
        Some('w') => write!(out, "{}", moment.weekday),
        Some('H') => write!(out, "{hour:02}"),
        Some('I') => write!(out, "{hour12:02}"),
        Some('M') => write!(out, "{minute:02}"),
        Some('S') => write!(out, "{second:02}"),
        Some('p') => write!(out, "{}", if *hour < 12 { "AM" } else { "PM" }),
        Some('F') => write!(out, "{year}-{month:02}-{day:02}"),
        Some('T') => write!(out, "{hour:02}:{minute:02}:{second:02}"),
        Some('Z') => write!(out, "UTC"),
        Some('z') => write!(out, "+0000"),
        Some('%') => write!(out, "%"),
        other => {
            let directive = other.map_or_else(String::new, String::from);
            return Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now does not know `%{directive}`")));
        }
    };
    written.map_err(|_| Error::from(ErrorKind::WriteFailure))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn formats_like_strftime() {
        let all = "%Y-%m-%d %e %j %B %b %A %a %H:%M:%S %I %p %y %-d %-m %-H %%";
        let cases = [
            (0, "1970-01-01  1 001 January Jan Thursday Thu 00:00:00 12 AM 70 1 1 0 %"),
            (951_782_399, "2000-02-28 28 059 February Feb Monday Mon 23:59:59 11 PM 00 28 2 23 %"),
            (951_782_400, "2000-02-29 29 060 February Feb Tuesday Tue 00:00:00 12 AM 00 29 2 0 %"),
            (1_735_689_599, "2024-12-31 31 366 December Dec Tuesday Tue 23:59:59 11 PM 24 31 12 23 %"),
            (4_107_542_400, "2100-03-01  1 060 March Mar Monday Mon 00:00:00 12 AM 00 1 3 0 %"),
        ];
        for (seconds, expected) in cases {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(format(time, all).unwrap(), expected);
        }
    }

    #[test]
    fn unknown_directives_are_refused() {
        assert!(format(UNIX_EPOCH, "%Q").is_err());
        assert!(format(UNIX_EPOCH, "50%").is_err());
        assert_eq!(format(UNIX_EPOCH, "Today").unwrap(), "Today");
    }
}
