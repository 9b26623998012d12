//! How far a lossy champion's tensor is from the one that went in, and how far it may be (protocol §7 "Production").

use codec::similarity;
use model::config::Message;
use swarm::record::LossyBounds;

use crate::miner::frames;

/// Why a tensor is too far from what went in.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Beyond {
    #[error("what comes back has another length, or no finite numbers")]
    Numbers,
    #[error("a similarity of {0:.5}")]
    Similarity(f64),
    #[error("a norm that is {0:+.3} % off")]
    Norm(f64),
    #[error("a number that is off by {0:.3} of itself, or of the root mean square")]
    Element(f64),
}

/// Whether `decoded` may stand for `message`. The same bits on every machine.
pub(super) fn check(bounds: &LossyBounds, message: &Message, decoded: &Message) -> Result<(), Beyond> {
    if decoded.bytes == message.bytes {
        return Ok(());
    }
    let (x, y) = (floats(message)?, floats(decoded)?);
    let allowed = |ppm: u32| f64::from(ppm) / 1e6;
    let views = frames::view(message).and_then(|x| similarity(x, frames::view(decoded)?));
    let similar = views.map_err(|_| Beyond::Numbers)?;
    if similar < allowed(bounds.similarity_ppm) {
        return Err(Beyond::Similarity(similar));
    }
    let square = |numbers: &[f32]| numbers.iter().map(|x| f64::from(*x) * f64::from(*x)).sum::<f64>();
    let (xx, yy) = (square(&x), square(&y));
    let stretch = if xx == yy { 0.0 } else { (yy / xx).sqrt() - 1.0 };
    if stretch.abs() > allowed(bounds.norm_ppm) {
        return Err(Beyond::Norm(stretch * 100.0));
    }
    let rms = (xx / x.len() as f64).sqrt();
    let off = |(x, y): (&f32, &f32)| {
        let (x, y) = (f64::from(*x), f64::from(*y));
        (y - x).abs() / rms.max(x.abs())
    };
    let worst = x.iter().zip(&y).map(off).fold(0.0, f64::max);
    if worst > allowed(bounds.element_ppm) {
        return Err(Beyond::Element(worst));
    }
    Ok(())
}

/// Numbers of a tensor that crosses as numbers, if all are finite.
pub(crate) fn floats(message: &Message) -> Result<Vec<f32>, Beyond> {
    let count: usize = message.shape.iter().product();
    if message.bytes.len() != count * message.dtype.bytes() {
        return Err(Beyond::Numbers);
    }
    let mut numbers = vec![0.0; count];
    message.read_f32(&mut numbers).map_err(|_| Beyond::Numbers)?;
    Ok(numbers)
}

#[cfg(test)]
mod tests {
    use model::config::Dtype;

    use super::*;

    const BOUNDS: LossyBounds =
        LossyBounds { similarity_ppm: 990_000, norm_ppm: 5_000, element_ppm: 100_000 };

    fn tensor(numbers: &[f32]) -> Message {
        Message::from_f32(Dtype::F32, vec![numbers.len()], numbers)
    }

    #[test]
    fn each_bound_is_kept_by_itself() {
        let x: Vec<f32> = (0..1000).map(|at| ((at * 37 % 101) as f32 - 50.0) / 30.0).collect();
        let with = |change: &dyn Fn(usize, f32) -> f32| {
            let y: Vec<f32> = x.iter().enumerate().map(|(at, x)| change(at, *x)).collect();
            check(&BOUNDS, &tensor(&x), &tensor(&y))
        };
        let wiggle =
            |share: f32| move |at: usize, x: f32| x + if at.is_multiple_of(2) { share } else { -share };
        assert_eq!(with(&|_, x| x), Ok(()));
        assert_eq!(with(&wiggle(0.005)), Ok(()));
        assert!(matches!(with(&wiggle(0.02)), Err(Beyond::Similarity(_))));
        assert!(matches!(with(&|_, x| x * 1.006), Err(Beyond::Norm(off)) if (0.59..0.61).contains(&off)));
        assert!(matches!(with(&|at, x| if at == 3 { x + 0.2 } else { x }), Err(Beyond::Element(_))));
        assert_eq!(with(&|at, x| if at == 3 { x + 0.05 } else { x }), Ok(()));
        for not in [f32::NAN, f32::INFINITY] {
            assert_eq!(with(&|at, x| if at == 9 { not } else { x }), Err(Beyond::Numbers));
        }
        let zeros = tensor(&[0.0; 8]);
        assert_eq!(check(&BOUNDS, &zeros, &zeros), Ok(()));
        assert!(check(&BOUNDS, &zeros, &tensor(&[1e-20; 8])).is_err(), "something of nothing");
        assert!(check(&BOUNDS, &tensor(&x), &tensor(&x[1..])).is_err());
    }
}
