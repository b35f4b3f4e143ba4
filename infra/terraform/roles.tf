# A role a component, for one service account each, with no more than its own buckets.
locals {
  components = {
    mlflow   = { service_account = "mlflow", policies = ["mlflow"] }
    training = { service_account = "ray", policies = ["training"] }
    # flow runs train in their own pod and enhance
    flows = { service_account = "flows", policies = ["training", "enhance"] }
  }
}

data "aws_iam_policy_document" "trust" {
  for_each = local.components

  statement {
    actions = ["sts:AssumeRoleWithWebIdentity"]
    principals {
      type        = "Federated"
      identifiers = [var.oidc_provider_arn]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.oidc_provider_host}:sub"
      values   = ["system:serviceaccount:${var.namespace}:${each.value.service_account}"]
    }
    condition {
      test     = "StringEquals"
      variable = "${var.oidc_provider_host}:aud"
      values   = ["sts.amazonaws.com"]
    }
  }
}

resource "aws_iam_role" "this" {
  for_each             = local.components
  name                 = "${var.prefix}-${each.key}"
  assume_role_policy   = data.aws_iam_policy_document.trust[each.key].json
  max_session_duration = 43200
}

resource "aws_iam_policy" "this" {
  for_each = toset(["mlflow", "training", "enhance"])
  name     = "${var.prefix}-${each.key}"
  policy   = templatefile("${path.module}/policies/${each.key}.json.tftpl", { prefix = var.prefix })
}

resource "aws_iam_policy" "key" {
  name = "${var.prefix}-key"
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "UseBucketKey"
      Effect   = "Allow"
      Action   = ["kms:Decrypt", "kms:GenerateDataKey"]
      Resource = aws_kms_key.buckets.arn
    }]
  })
}

resource "aws_iam_role_policy_attachment" "buckets" {
  for_each = merge([
    for name, component in local.components : {
      for policy in component.policies : "${name}-${policy}" => { role = name, policy = policy }
    }
  ]...)
  role       = aws_iam_role.this[each.value.role].name
  policy_arn = aws_iam_policy.this[each.value.policy].arn
}

resource "aws_iam_role_policy_attachment" "key" {
  for_each   = local.components
  role       = aws_iam_role.this[each.key].name
  policy_arn = aws_iam_policy.key.arn
}
