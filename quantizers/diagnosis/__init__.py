"""What is wrong with the quantizers in a model: measures, verdicts with their remedies, a table and a figure.

`quantizers.diagnose` is the function.
"""

from quantizers.diagnosis.diagnosing import diagnose
from quantizers.diagnosis.findings import Finding
from quantizers.diagnosis.measures import Gradients, Measures
from quantizers.diagnosis.report import Diagnosis

__all__ = ["Diagnosis", "Finding", "Gradients", "Measures", "diagnose"]
