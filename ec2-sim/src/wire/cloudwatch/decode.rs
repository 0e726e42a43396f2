//! From trees to requests. Names are CloudWatch's.

use super::tree::{Fields, Tree};
use crate::model::ApiError;
use crate::model::cloudwatch::Request;
use crate::model::cloudwatch::request::{
    Datum, Dimension, GetMetricData, GetMetricStatistics, ListMetrics, MetricRef, MetricStat, PutMetricData, Query,
    StatisticSet,
};

/// The request that an action's parameters make.
pub(super) fn request(action: &str, tree: &Tree) -> Result<Request, ApiError> {
    let fields = Fields::of(tree, "")?;
    match action {
        "PutMetricData" => fields.whole(put_metric_data).map(Request::PutMetricData),
        "ListMetrics" => fields.whole(list_metrics).map(Request::ListMetrics),
        "GetMetricStatistics" => fields.whole(get_metric_statistics).map(Request::GetMetricStatistics),
        "GetMetricData" => fields.whole(get_metric_data).map(Request::GetMetricData),
        unknown => {
            let message = format!("The action {unknown} is not valid for this web service.");
            Err(ApiError::client("InvalidAction", message))
        }
    }
}

fn put_metric_data(fields: &mut Fields<'_>) -> Result<PutMetricData, ApiError> {
    // Means something for entities only, which are not simulated.
    fields.flag("StrictEntityValidation")?;
    Ok(PutMetricData { namespace: fields.text("Namespace")?, data: fields.structures("MetricData", datum)? })
}

fn datum(fields: &mut Fields<'_>) -> Result<Datum, ApiError> {
    Ok(Datum {
        name: fields.text("MetricName")?,
        dimensions: fields.structures("Dimensions", dimension)?,
        timestamp: fields.time("Timestamp")?,
        value: fields.number("Value")?,
        statistics: fields.structure("StatisticValues", statistic_set)?,
        values: fields.numbers("Values")?,
        counts: fields.numbers("Counts")?,
        unit: fields.text("Unit")?,
        storage_resolution: fields.number("StorageResolution")?,
    })
}

fn dimension(fields: &mut Fields<'_>) -> Result<Dimension, ApiError> {
    Ok(Dimension { name: fields.text("Name")?, value: fields.text("Value")? })
}

fn statistic_set(fields: &mut Fields<'_>) -> Result<StatisticSet, ApiError> {
    Ok(StatisticSet {
        sample_count: fields.number("SampleCount")?,
        sum: fields.number("Sum")?,
        minimum: fields.number("Minimum")?,
        maximum: fields.number("Maximum")?,
    })
}

fn metric(fields: &mut Fields<'_>) -> Result<MetricRef, ApiError> {
    Ok(MetricRef {
        namespace: fields.text("Namespace")?,
        name: fields.text("MetricName")?,
        dimensions: fields.structures("Dimensions", dimension)?,
    })
}

fn list_metrics(fields: &mut Fields<'_>) -> Result<ListMetrics, ApiError> {
    let MetricRef { namespace, name, dimensions } = metric(fields)?;
    if fields.flag("IncludeLinkedAccounts")? == Some(true) {
        return Err(crate::model::cloudwatch::error::not_simulated("IncludeLinkedAccounts"));
    }
    Ok(ListMetrics {
        namespace,
        name,
        dimensions,
        recently_active: fields.text("RecentlyActive")?,
        next_token: fields.text("NextToken")?,
    })
}

fn get_metric_statistics(fields: &mut Fields<'_>) -> Result<GetMetricStatistics, ApiError> {
    Ok(GetMetricStatistics {
        metric: metric(fields)?,
        start: fields.time("StartTime")?,
        end: fields.time("EndTime")?,
        period: fields.number("Period")?,
        statistics: fields.texts("Statistics")?,
        unit: fields.text("Unit")?,
    })
}

fn get_metric_data(fields: &mut Fields<'_>) -> Result<GetMetricData, ApiError> {
    Ok(GetMetricData {
        queries: fields.structures("MetricDataQueries", query)?,
        start: fields.time("StartTime")?,
        end: fields.time("EndTime")?,
        scan_by: fields.text("ScanBy")?,
        max_datapoints: fields.number("MaxDatapoints")?,
        next_token: fields.text("NextToken")?,
    })
}

fn query(fields: &mut Fields<'_>) -> Result<Query, ApiError> {
    Ok(Query {
        id: fields.text("Id")?,
        stat: fields.structure("MetricStat", metric_stat)?,
        expression: fields.text("Expression")?,
        label: fields.text("Label")?,
        return_data: fields.flag("ReturnData")?,
    })
}

fn metric_stat(fields: &mut Fields<'_>) -> Result<MetricStat, ApiError> {
    Ok(MetricStat {
        metric: fields.structure("Metric", metric)?.unwrap_or_default(),
        period: fields.number("Period")?,
        stat: fields.text("Stat")?,
        unit: fields.text("Unit")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cloudwatch::ACTIONS;

    #[test]
    fn every_action_of_the_list_is_understood_and_no_other() {
        let nothing = Tree::Map(Vec::new());
        for action in ACTIONS {
            assert_eq!(request(action, &nothing).unwrap().action(), action);
        }
        assert_eq!(request("PutMetricAlarm", &nothing).unwrap_err().code, "InvalidAction");
    }

    #[test]
    fn what_is_not_understood_is_refused_and_named() {
        let datum = Tree::map([("Value", Tree::Number(1.0)), ("Colour", Tree::text("red"))]);
        let put = Tree::map([("MetricData", Tree::List(vec![datum]))]);
        let refusal = request("PutMetricData", &put).unwrap_err();
        assert_eq!(refusal.message, "The parameter MetricData.member.1.Colour is not simulated.");
        let put = Tree::map([("Namespace", Tree::Number(5.0))]);
        assert_eq!(request("PutMetricData", &put).unwrap_err().message, "Namespace is not a string.");
        let values = Tree::List(vec![Tree::Number(1.0), Tree::text("2")]);
        let put = Tree::map([("MetricData", Tree::List(vec![Tree::map([("Values", values)])]))]);
        let refusal = request("PutMetricData", &put).unwrap_err();
        assert_eq!(refusal.message, "MetricData.member.1.Values.member.2 is not a number.");
    }
}
