"""What a generator samples of itself and of its host's processors."""

from loadgen.measure import HostSampler


def test_a_generator_tells_of_itself_and_of_its_host() -> None:
    readings = HostSampler("me_1").sample()
    assert {(reading.device, reading.id, reading.measure) for reading in readings} == {
        ("generator", "me_1", "utilisation_percent"),
        ("cpu", "", "utilisation_percent"),
        ("cpu", "", "memory_bytes"),
    }
    assert all(reading.value >= 0 for reading in readings)
