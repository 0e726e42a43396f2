//! What an instance type can hold, with a bundled table behind DescribeInstanceTypes.
